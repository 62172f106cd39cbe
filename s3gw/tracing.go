package s3gw

import (
	"bytes"
	"encoding/json"
	"net/http"
	"sync/atomic"
	"time"

	"ashlar/daemon/wire"
	"ashlar/placement/topology"
	"ashlar/s3gw/s3"
	"ashlar/s3gw/trace"
)

// The live trace of requests: our own subresource of the service, GET /?x-ashlar-trace.
// The answer is a line of JSON for each request that is over from now on (package
// trace), until the client leaves; an empty line now and then says that the gateway
// still lives. Only the account of the root key may ask, for it sees what all do.

// subTrace is the subresource, the others are its parameters.
const (
	subTrace    = "x-ashlar-trace"
	traceSlow   = "x-ashlar-slow"       // a time such as 200ms
	traceErrors = "x-ashlar-errors"     // present: only what failed
	traceBucket = "x-ashlar-bucket"     // a name
	traceID     = "x-ashlar-request-id" // one request
	traceFor    = "x-ashlar-for"        // a time after which the answer ends
)

const (
	// traceBeat is the time between two signs of life.
	traceBeat = 5 * time.Second
	// traceBatchBytes is how much is gathered before it is written.
	traceBatchBytes = 64 << 10
)

// received is what came of a body, and how long its client was waited for. It is
// read while somebody below may still be reading the body.
type received struct{ bytes, wait atomic.Int64 }

// watch begins to record the steps of the request if somebody watches.
func (c *call) watch() {
	if !c.s.trace.Watched() {
		return
	}
	c.rec = wire.NewRecorder(c.id)
	c.ctx = wire.WithRecorder(c.ctx, c.rec)
	c.r = c.r.WithContext(c.ctx)
}

// admit notes that the request is one that may be served.
func (c *call) admit() {
	if c.rec != nil {
		c.authorized = time.Now()
	}
}

// tell gives whoever watches the request, which is over.
func (c *call) tell(op, code string, took time.Duration) {
	if !c.s.trace.Watched() {
		return
	}
	if c.route == nil && c.bucket == "" && c.site == nil {
		_ = c.parseTarget() // of a request that was refused before that; what is wrong there is not told here
	}
	e := &trace.Event{
		Time: c.started, Gateway: c.s.hostID, ID: c.id, Method: c.r.Method, Operation: op,
		Bucket: string(c.bucket), Key: trace.CutKey(string(c.objectKey())), Status: c.status, Took: trace.Duration(took),
		BytesIn: c.received.bytes.Load(), BytesOut: c.bytesOut, Remote: c.r.RemoteAddr,
		BodyIn: trace.Duration(c.received.wait.Load()), BodyOut: trace.Duration(c.sending),
	}
	if code != "OK" {
		e.Code = code
	}
	if c.auth != nil {
		e.AccessKey = c.auth.AccessKey
	}
	if !c.answered.IsZero() {
		e.FirstByte = trace.Duration(c.answered.Sub(c.started))
	}
	if !c.authorized.IsZero() {
		e.Auth = trace.Duration(c.authorized.Sub(c.started))
	}
	e.Record(c.rec)
	c.s.trace.Publish(e)
}

// traceFilter reads what the client wants to see, and for how long; 0 is for ever.
func (c *call) traceFilter() (f trace.Filter, end time.Duration, err error) {
	span := func(name string) time.Duration {
		text := c.query.Value(name)
		d, bad := time.ParseDuration(text)
		if text != "" && (bad != nil || d < 0) && err == nil {
			err = invalidArgument(name, text, "Want a time such as 200ms.")
		}
		return d
	}
	f = trace.Filter{Slow: span(traceSlow), Errors: c.query.Has(traceErrors), Bucket: c.query.Value(traceBucket), ID: c.query.Value(traceID)}
	return f, span(traceFor), err
}

func traceRequests(c *call) error {
	f, length, err := c.traceFilter()
	if err != nil {
		return err
	}
	w, err := c.s.trace.Watch(f)
	if err != nil {
		return &s3.Error{Code: s3.SlowDown, Message: "As many traces as there may be are running, or the gateway is stopping.", RetryAfterSeconds: 1, Err: err}
	}
	defer w.Close()
	var end <-chan time.Time // nil: never
	if length > 0 {
		timer := time.NewTimer(length)
		defer timer.Stop()
		end = timer.C
	}
	c.set("Content-Type", "application/x-ndjson")
	c.writeHead(http.StatusOK)
	beat := time.NewTicker(traceBeat)
	defer beat.Stop()
	out := &bytes.Buffer{}
	for sent := c.sendTrace(out); sent; sent = c.sendTrace(out) { // the head goes at once
		select {
		case e := <-w.Events():
			c.s.traceLines(out, w, e)
		case <-beat.C:
			out.WriteByte('\n')
		case <-end:
			return nil
		case <-w.Done():
			return nil
		case <-c.ctx.Done():
			return nil
		}
		if n := w.Dropped(); n > 0 {
			traceLine(out, &trace.Event{Time: c.s.now().UTC(), Gateway: c.s.hostID, Dropped: n})
		}
	}
	return nil // the client left, or takes nothing
}

// traceLines writes an event and what waits behind it.
func (s *Server) traceLines(out *bytes.Buffer, w *trace.Watcher, e *trace.Event) {
	names := s.traceNames()
	for {
		traceLine(out, e.Named(names))
		if out.Len() >= traceBatchBytes {
			return
		}
		select {
		case e = <-w.Events():
		default:
			return
		}
	}
}

func traceLine(out *bytes.Buffer, e *trace.Event) {
	b, err := json.Marshal(e)
	if err != nil {
		panic("s3gw: an event that JSON cannot say: " + err.Error())
	}
	out.Write(append(b, '\n'))
}

// sendTrace writes what was gathered. It reports whether the client took it.
func (c *call) sendTrace(out *bytes.Buffer) bool {
	c.extendWrite(time.Now())
	n, err := c.w.Write(out.Bytes())
	c.bytesOut += int64(n)
	out.Reset()
	return err == nil && http.NewResponseController(c.w).Flush() == nil
}

// traceNames finds names of hosts and disks in the newest map; what is not there
// keeps its id.
func (s *Server) traceNames() trace.Names {
	var m *topology.Map
	if s.maps != nil {
		m = s.maps()
	}
	return func(step *wire.Step) (host, disk string) {
		if step.Host != 0 {
			host = step.Host.String()
		}
		if step.Kind == wire.StepWrite || step.Kind == wire.StepRead {
			disk = step.Disk.String()
		}
		if m == nil {
			return host, disk
		}
		if h := m.Host(step.Host); h != nil {
			host = h.Name
		}
		if d, _ := m.DiskByID(step.Disk); disk != "" && d != nil {
			disk = d.Name
		}
		return host, disk
	}
}
