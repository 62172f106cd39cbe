package s3gw

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"ashlar/placement/health"
)

func TestClusterMetrics(t *testing.T) {
	st := health.Status{
		Capacity: health.Capacity{StoredBytes: 700, UsableBytes: 900},
		Scrub:    &health.Scrub{OldestSeconds: 60},
		Room:     &health.Room{WritableBytes: 100, ReclaimableBytes: 50, GroupsFull: 3},
		Codes:    []health.Code{{Code: health.DiskFull}, {Code: health.Full}, {Code: health.DiskFull}},
	}
	var away error
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(clusterMetrics{func(context.Context) (health.Status, error) { return st, away }})
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	codes, values := 0, map[string]float64{}
	for _, f := range all {
		for _, m := range f.GetMetric() {
			if f.GetName() != "ashlar_health" {
				values[f.GetName()] = m.GetGauge().GetValue()
				continue
			}
			codes++
			name := m.GetLabel()[0].GetValue()
			if raised := m.GetGauge().GetValue() == 1; raised != (name == health.Full || name == health.DiskFull) {
				t.Errorf("%s: %v", name, raised)
			}
		}
	}
	if codes != len(health.Names()) {
		t.Errorf("%d codes of %d", codes, len(health.Names()))
	}
	want := map[string]float64{
		"ashlar_stored_bytes": 700, "ashlar_usable_bytes": 900, "ashlar_writable_bytes": 100, "ashlar_reclaimable_bytes": 50,
		"ashlar_scrub_oldest_seconds": 60,
	}
	if !maps.Equal(values, want) {
		t.Errorf("%v, want %v", values, want)
	}
	away = errors.New("no quorum")
	if all, err := reg.Gather(); err != nil || len(all) != 0 {
		t.Errorf("without an answer: %v, %v", all, err)
	}
}

func TestServeMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	newMetrics(reg).observe("GetObject", "NoSuchKey", time.Second)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	end := serveMetrics(ln, reg, slog.New(slog.DiscardHandler))
	defer end()
	url := "http://" + ln.Addr().String()
	for path, want := range map[string]int{"/metrics": 200, "/": 404, "/debug/pprof/": 404} {
		r, err := http.Get(url + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r.Body)
		r.Body.Close()
		if err != nil || r.StatusCode != want {
			t.Errorf("%s: %s, %v", path, r.Status, err)
		}
		if line := `ashlar_s3_requests_total{code="NoSuchKey",operation="GetObject"} 1`; want == 200 && !strings.Contains(string(body), line) {
			t.Errorf("no %s in\n%s", line, body)
		}
	}
	end()
	if _, err := http.Get(url + "/metrics"); err == nil {
		t.Error("it answers after its end")
	}
}
