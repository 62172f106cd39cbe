// Package trace is what a gateway tells of its requests while somebody watches: one
// Event for each request that is over, with the steps of the request that took time.
//
//	request ──► Hub.Publish ──► Watcher (filter, bounded queue) ──► reader
//
// A reader can never hold a request up: a queue that is full drops the event and
// counts it. While nobody watches, a request pays one atomic load.
//
// An Event holds nothing that lets a request be repeated: no header, no query, no
// secret, no signature; of credentials only the id of an access key that was verified.
// The package does not know HTTP or the cluster: who serves the readers names hosts
// and disks.
package trace

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"ashlar/daemon/wire"
)

const (
	// watchersMax bounds the readers of one gateway, queueMax the events that wait for
	// one of them.
	watchersMax = 16
	queueMax    = 2048
	// keyBytesMax is how much of a key is told.
	keyBytesMax = 256
)

// Duration is a time that JSON has as milliseconds.
type Duration time.Duration

// MarshalJSON implements json.Marshaler.
func (d Duration) MarshalJSON() ([]byte, error) {
	return fmt.Appendf(nil, "%.3f", float64(d)/float64(time.Millisecond)), nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (d *Duration) UnmarshalJSON(b []byte) error {
	var ms float64
	if _, err := fmt.Sscan(string(b), &ms); err != nil {
		return fmt.Errorf("trace: %q is no number of milliseconds", b)
	}
	*d = Duration(ms * float64(time.Millisecond))
	return nil
}

// Event is one request that is over, or, with Dropped alone, a gap.
type Event struct {
	// Time is when the request's header had arrived.
	Time    time.Time `json:"time"`
	Gateway string    `json:"gateway"`
	ID      string    `json:"request_id,omitempty"`
	Method  string    `json:"method,omitempty"`
	// Operation is AWS's name of it, Unknown for what is none.
	Operation string `json:"operation,omitempty"`
	Bucket    string `json:"bucket,omitempty"`
	// Key is cut where it is long, with … at its end.
	Key string `json:"key,omitempty"`
	// Status is that of HTTP, 0 if there was no answer. Code is S3's, empty if all is well.
	Status int    `json:"status,omitempty"`
	Code   string `json:"code,omitempty"`
	// Took is the time until the answer was given to the system, FirstByte until its
	// first byte was.
	Took      Duration `json:"ms,omitempty"`
	FirstByte Duration `json:"first_byte_ms,omitempty"`
	// BytesIn is the length of the request's body as it came, with what frames it,
	// BytesOut that of the answer's.
	BytesIn  int64  `json:"bytes_in,omitempty"`
	BytesOut int64  `json:"bytes_out,omitempty"`
	Remote   string `json:"remote,omitempty"`
	// AccessKey is the id of the key that the request was signed with, if it was right.
	AccessKey string `json:"access_key,omitempty"`

	// Auth is the time until it was known that the request may be served, BodyIn how
	// long the client was waited for to send its body, BodyOut to take the answer's.
	Auth    Duration `json:"auth_ms,omitempty"`
	BodyIn  Duration `json:"body_in_ms,omitempty"`
	BodyOut Duration `json:"body_out_ms,omitempty"`
	// Steps are the calls to hosts, failures first, then the longest; StepsLeftOut is how
	// many more there were. StepsUnknown says of a request that it was under way when the
	// first reader came: it has neither, nor Auth and BodyOut.
	Steps        []Step `json:"steps,omitempty"`
	StepsLeftOut int    `json:"steps_left_out,omitempty"`
	StepsUnknown bool   `json:"steps_unknown,omitempty"`

	// Dropped is the number of requests that are not told of, because the reader was
	// too slow.
	Dropped int64 `json:"dropped,omitempty"`

	raw []wire.Step
}

// Step is what a request asked of one disk, shard or host; see wire.Step.
type Step struct {
	// What is get, scan or commit (metadata), body, open or delete (at a
	// coordinator), write or read (a piece), or memory.
	What  string  `json:"what"`
	Host  string  `json:"host"`
	Disk  string  `json:"disk,omitempty"`
	Shard *uint32 `json:"shard,omitempty"`
	// Calls is how many there were; Late of them were done without, Failed failed, the
	// last one for Reason.
	Calls   uint32   `json:"calls"`
	Late    uint32   `json:"late,omitempty"`
	Failed  uint32   `json:"failed,omitempty"`
	Reason  string   `json:"reason,omitempty"`
	Longest Duration `json:"longest_ms"`
	Total   Duration `json:"total_ms"`
}

// What a step does, by its kind.
var kinds = [...]string{
	wire.StepGet: "get", wire.StepScan: "scan", wire.StepCommit: "commit", wire.StepBody: "body", wire.StepOpen: "open",
	wire.StepWrite: "write", wire.StepRead: "read", wire.StepMemory: "memory", wire.StepDelete: "delete",
}

// Record takes the steps that were recorded; nil is of a request whose steps were not.
func (e *Event) Record(r *wire.Recorder) {
	e.StepsUnknown = r == nil
	steps, leftOut := r.Finish()
	e.raw, e.StepsLeftOut = steps, int(leftOut)
}

// Names turns the ids of a host and a disk into what people call them.
type Names func(*wire.Step) (host, disk string)

// Named returns the event with its steps for people.
func (e *Event) Named(name Names) *Event {
	out := *e
	for i := range e.raw {
		r := &e.raw[i]
		s := Step{Calls: r.Calls, Late: r.Late, Failed: r.Failed, Reason: r.Reason, Longest: Duration(r.Longest), Total: Duration(r.Total)}
		s.What = fmt.Sprint("step ", r.Kind)
		if int(r.Kind) < len(kinds) {
			s.What = kinds[r.Kind]
		}
		switch r.Kind {
		case wire.StepGet, wire.StepScan, wire.StepCommit:
			shard := uint32(r.Shard)
			s.Shard = &shard
		}
		s.Host, s.Disk = name(r)
		out.Steps = append(out.Steps, s)
	}
	return &out
}

// CutKey returns a key as it is told.
func CutKey(key string) string {
	if len(key) <= keyBytesMax {
		return key
	}
	n := keyBytesMax
	for n > keyBytesMax-utf8.UTFMax && !utf8.RuneStart(key[n]) {
		n--
	}
	return key[:n] + "…"
}

// Filter says which requests a reader wants; the zero one wants all.
type Filter struct {
	// Slow is the least time that a request took.
	Slow time.Duration
	// Errors wants only answers of 400 and above, and requests without an answer.
	Errors bool
	// Bucket and ID want one bucket's requests, or one request.
	Bucket, ID string
}

// Wants reports whether the reader wants an event.
func (f *Filter) Wants(e *Event) bool {
	return time.Duration(e.Took) >= f.Slow &&
		(!f.Errors || e.Status == 0 || e.Status >= 400) &&
		(f.Bucket == "" || f.Bucket == e.Bucket) &&
		(f.ID == "" || f.ID == e.ID)
}

// Hub hands events to whoever watches. The zero value is ready.
type Hub struct {
	watched atomic.Int32
	mu      struct {
		sync.Mutex
		watchers []*Watcher
		closed   bool
	}
}

// Watched reports whether anybody watches.
func (h *Hub) Watched() bool { return h.watched.Load() > 0 }

// Publish gives an event to all who want it. It never waits for them. Nobody may
// change the event afterwards.
func (h *Hub) Publish(e *Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, w := range h.mu.watchers {
		if !w.filter.Wants(e) {
			continue
		}
		select {
		case w.events <- e:
		default:
			w.dropped.Add(1)
		}
	}
}

// ErrTooMany is the answer to one reader more than there may be.
var ErrTooMany = fmt.Errorf("trace: %d readers watch already", watchersMax)

// ErrClosed is the answer of a hub that is closed.
var ErrClosed = errors.New("trace: the gateway is stopping")

// Watch returns a watcher, which the caller closes.
func (h *Hub) Watch(f Filter) (*Watcher, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.mu.closed:
		return nil, ErrClosed
	case len(h.mu.watchers) == watchersMax:
		return nil, ErrTooMany
	}
	w := &Watcher{hub: h, filter: f, events: make(chan *Event, queueMax), done: make(chan struct{})}
	h.mu.watchers = append(h.mu.watchers, w)
	h.watched.Add(1)
	return w, nil
}

// Close ends all watchers, and lets none begin.
func (h *Hub) Close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.closed = true
	for len(h.mu.watchers) > 0 {
		h.removeLocked(h.mu.watchers[0])
	}
}

func (h *Hub) removeLocked(w *Watcher) {
	at := slices.Index(h.mu.watchers, w)
	if at < 0 {
		return
	}
	h.mu.watchers = slices.Delete(h.mu.watchers, at, at+1)
	h.watched.Add(-1)
	close(w.done)
}

// Watcher is one reader's queue.
type Watcher struct {
	hub     *Hub
	filter  Filter
	events  chan *Event // never closed
	dropped atomic.Int64
	done    chan struct{}
}

// Events yields what the reader wants.
func (w *Watcher) Events() <-chan *Event { return w.events }

// Done is closed when no more events come.
func (w *Watcher) Done() <-chan struct{} { return w.done }

// Dropped returns how many events were dropped since the last time.
func (w *Watcher) Dropped() int64 { return w.dropped.Swap(0) }

// Close ends the watching.
func (w *Watcher) Close() {
	w.hub.mu.Lock()
	defer w.hub.mu.Unlock()
	w.hub.removeLocked(w)
}
