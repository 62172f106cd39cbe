package s3gw

import (
	"context"
	"errors"
	"maps"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"ashlar/placement/health"
)

func TestClusterMetrics(t *testing.T) {
	st := health.Status{
		Capacity: health.Capacity{StoredBytes: 700, UsableBytes: 900},
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
	}
	if !maps.Equal(values, want) {
		t.Errorf("%v, want %v", values, want)
	}
	away = errors.New("no quorum")
	if all, err := reg.Gather(); err != nil || len(all) != 0 {
		t.Errorf("without an answer: %v, %v", all, err)
	}
}
