package s3gw

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"ashlar/placement/health"
	"ashlar/s3gw/store"
)

// storeMetrics tell what the store does without being asked.
func storeMetrics(s *store.Store) (list []prometheus.Collector) {
	counter := func(name, help string, value func(store.Stats) int64) {
		list = append(list, prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help},
			func() float64 { return float64(value(s.Stats())) }))
	}
	counter("ashlar_lifecycle_expired_total", "Versions that lifecycle rules expired.", func(st store.Stats) int64 { return st.Expired })
	counter("ashlar_lifecycle_aborted_total", "Multipart uploads that lifecycle rules ended.", func(st store.Stats) int64 { return st.Aborted })
	counter("ashlar_lifecycle_visits_total", "Keys and uploads that the lifecycle worker looked at.", func(st store.Stats) int64 { return st.Visits })
	counter("ashlar_lifecycle_unreadable_total", "How often the lifecycle worker passed over a row that cannot be read.", func(st store.Stats) int64 { return st.Unreadable })
	return append(list, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "ashlar_lifecycle_behind_seconds", Help: "How late the entry was that the lifecycle worker took last.",
	}, func() float64 { return s.Stats().Behind.Seconds() }))
}

// clusterMetrics tell how the cluster is, as the placement quorum says when they are
// collected. Every gateway tells the same; without an answer none is told.
type clusterMetrics struct {
	ask func(context.Context) (health.Status, error)
}

// clusterTimeout bounds how long the quorum is waited for.
const clusterTimeout = 5 * time.Second

var (
	healthDesc = prometheus.NewDesc("ashlar_health", "1 while the health code is raised, else 0.", []string{"code"}, nil)
	storedDesc = prometheus.NewDesc("ashlar_stored_bytes", "User bytes stored, estimated from what the disks hold.", nil, nil)
	usableDesc = prometheus.NewDesc("ashlar_usable_bytes", "User bytes that fit the cluster.", nil, nil)
	roomDesc   = prometheus.NewDesc("ashlar_writable_bytes", "User bytes that fit until PUTs are refused because disks are full.", nil, nil)
	scrubDesc  = prometheus.NewDesc("ashlar_scrub_oldest_seconds", "Age of the oldest byte that no scrub has verified since it was stored.", nil, nil)
	againDesc  = prometheus.NewDesc("ashlar_reclaimable_bytes", "User bytes that fit on top when what was deleted is compacted.", nil, nil)
)

// Describe implements prometheus.Collector.
func (clusterMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{healthDesc, storedDesc, usableDesc, roomDesc, againDesc, scrubDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m clusterMetrics) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), clusterTimeout)
	defer cancel()
	st, err := m.ask(ctx)
	if err != nil {
		return
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for _, name := range health.Names() {
		raised := slices.ContainsFunc(st.Codes, func(c health.Code) bool { return c.Code == name })
		gauge(healthDesc, map[bool]float64{true: 1}[raised], name)
	}
	gauge(storedDesc, float64(st.Capacity.StoredBytes))
	gauge(usableDesc, float64(st.Capacity.UsableBytes))
	if s := st.Scrub; s != nil {
		gauge(scrubDesc, float64(s.OldestSeconds))
	}
	if r := st.Room; r != nil {
		gauge(roomDesc, float64(r.WritableBytes))
		gauge(againDesc, float64(r.ReclaimableBytes))
	}
}

// metricsTimeout bounds a request for metrics, the quorum's answer included.
const metricsTimeout = 2 * clusterTimeout

// serveMetrics answers GET /metrics on ln, which it owns, until end is called.
func serveMetrics(ln net.Listener, from prometheus.Gatherer, log *slog.Logger) (end func()) {
	all := promhttp.HandlerFor(from, promhttp.HandlerOpts{MaxRequestsInFlight: metricsMax})
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/metrics" {
				w.WriteHeader(http.StatusNotFound)
				return
			}
			all.ServeHTTP(w, r)
		}),
		ReadTimeout: metricsTimeout, WriteTimeout: metricsTimeout, IdleTimeout: time.Minute, MaxHeaderBytes: 64 << 10,
	}
	go func() { // ends with Close
		if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			log.Error("metrics are not served any more", "code", "s3gw-metrics", "addr", ln.Addr(), "error", err)
		}
	}()
	log.Info("metrics", "url", "http://"+ln.Addr().String()+"/metrics")
	return func() { srv.Close() }
}

// metricsMax bounds those who ask for metrics at once.
const metricsMax = 4

type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	unlogged prometheus.Counter
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ashlar_s3_requests_total", Help: "Requests answered, by operation and S3 code (OK if none).",
		}, []string{"operation", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "ashlar_s3_request_seconds", Help: "Time from the header to the end of the answer.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}, []string{"operation"}),
		unlogged: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ashlar_access_log_lost_total", Help: "Records of access logs of buckets that were not delivered.",
		}),
	}
	if r != nil {
		r.MustRegister(m.requests, m.seconds, m.unlogged)
	}
	return m
}

func (m *metrics) observe(op, code string, took time.Duration) {
	m.requests.WithLabelValues(op, code).Inc()
	m.seconds.WithLabelValues(op).Observe(took.Seconds())
}
