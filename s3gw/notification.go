package s3gw

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"ashlar/s3gw/iam"
	"ashlar/s3gw/notify"
	"ashlar/s3gw/notify/courier"
	"ashlar/s3gw/s3"
	"ashlar/s3gw/store"
)

func getNotification(c *call) error {
	config, err := c.s.backend.Notification(c.ctx, string(c.bucket))
	if err != nil {
		return withBucket(err, c.bucket)
	}
	return c.xml(http.StatusOK, func(w *s3.Writer) { w.Notification(config) })
}

// putNotification stores a configuration whose targets this gateway has. A test is queued
// for them like every event, unless the client does not want it: they may be away.
func putNotification(c *call) error {
	doc, err := c.document()
	if err != nil {
		return err
	}
	config, err := s3.ParseNotification(doc)
	if err != nil {
		return err
	}
	if config != nil {
		for i := range config.Rules {
			if err := c.checkTarget(config.Rules[i].ARN); err != nil {
				return err
			}
		}
	}
	test := !strings.EqualFold(c.header("X-Amz-Skip-Destination-Validation"), "true")
	if err := c.s.backend.SetNotification(c.ctx, string(c.bucket), config, test); err != nil {
		return withBucket(err, c.bucket)
	}
	return c.empty(http.StatusOK)
}

// checkTarget refuses an ARN that is none of a target of this gateway.
func (c *call) checkTarget(arn string) error {
	region, name, kind, err := notify.ParseARN(arn)
	if err == nil && (region == "" || region == c.s.region) {
		for i := range c.s.targets {
			if t := &c.s.targets[i]; t.Name == name && t.Kind == kind {
				return nil
			}
		}
	}
	return s3.E(s3.InvalidArgument, "Unable to validate the following destination configurations").
		With("ArgumentName", arn).With("ArgumentValue", "The destination is not among those that the operator declared.")
}

// originate says in whose request what follows is done, for those who are told.
func (c *call) originate() {
	if c.r.Method == http.MethodGet || c.r.Method == http.MethodHead {
		return
	}
	o := &store.Origin{Principal: c.who.ID, Request: c.id, Host: c.s.hostID}
	if c.who.Kind == iam.Anonymous {
		o.Principal = string(iam.Anonymous)
	}
	if host, _, err := net.SplitHostPort(c.r.RemoteAddr); err == nil {
		o.Source = host
	}
	c.ctx = store.WithOrigin(c.ctx, o)
}

// openTargets opens what is declared; a name may stand for one target only. The
// caller calls end when nobody sends any more.
func openTargets(list []courier.Config, region string) (targets map[string]store.Deliver, end func(), err error) {
	var opened []courier.Target
	end = func() {
		for _, t := range opened {
			t.Close()
		}
	}
	targets = map[string]store.Deliver{}
	for _, c := range list {
		t, err := courier.Open(c)
		if err == nil {
			opened = append(opened, t)
			if targets[c.Name] != nil {
				err = errors.New("notify: target " + c.Name + " is declared twice")
			}
		}
		if err != nil {
			end()
			return nil, nil, err
		}
		targets[c.Name] = func(ctx context.Context, e *notify.Event) error {
			record, err := e.Record(region)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(ctx, courier.SendTimeout)
			defer cancel()
			return t.Send(ctx, e, record)
		}
	}
	return targets, end, nil
}

// queueMetrics tell how the events of a target are doing.
func queueMetrics(s *store.Store, name string) (list []prometheus.Collector) {
	labels := prometheus.Labels{"target": name}
	counter := func(metric, help string, value func(store.QueueStats) float64) {
		list = append(list, prometheus.NewCounterFunc(prometheus.CounterOpts{Name: metric, Help: help, ConstLabels: labels},
			func() float64 { return value(s.QueueStats(name)) }))
	}
	gauge := func(metric, help string, value func(store.QueueStats) float64) {
		list = append(list, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: metric, Help: help, ConstLabels: labels},
			func() float64 { return value(s.QueueStats(name)) }))
	}
	counter("ashlar_notify_sent_total", "Events that this gateway sent.", func(q store.QueueStats) float64 { return float64(q.Sent) })
	counter("ashlar_notify_failed_total", "Attempts of this gateway to send an event that failed.", func(q store.QueueStats) float64 { return float64(q.Failed) })
	gauge("ashlar_notify_pending", "Events of the cluster that wait.", func(q store.QueueStats) float64 { return float64(q.Pending) })
	gauge("ashlar_notify_lost", "Events of the cluster that were not kept, ever.", func(q store.QueueStats) float64 { return float64(q.Lost) })
	gauge("ashlar_notify_behind_seconds", "How old the event was that this gateway sent last.", func(q store.QueueStats) float64 { return q.Behind.Seconds() })
	return list
}
