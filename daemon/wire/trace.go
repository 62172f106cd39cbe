package wire

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"

	"ashlar"
)

// What a request spends its time on is recorded while somebody watches: the gateway
// puts a Recorder into the context, and whoever makes a call for the request notes it
// there. To a coordinator in another process the request's id travels in traceHeader,
// and its steps come back in the same header of the answer, or in the trailer of a
// stream: base64 of a list in the form of bytes_codec.go. A host that does not know
// the header tells nothing, and one that is not asked records nothing.
const traceHeader = "Ashlar-Trace"

// StepKind is what a step of a request does.
type StepKind uint8

// The kinds. The numbers travel: append only.
const (
	StepGet    StepKind = iota // read a row of a metadata shard
	StepScan                   // read a page of rows of one
	StepCommit                 // commit a transaction on one
	StepBody                   // give a body to a coordinator
	StepOpen                   // ask a coordinator for a body, until its first bytes are there
	StepWrite                  // write a piece to a disk
	StepRead                   // read a piece from a disk
	StepMemory                 // wait for memory on the coordinator
	StepDelete                 // have a coordinator delete stripes
)

// Step is the calls of one kind that a request made to one disk, shard or host.
type Step struct {
	Kind  StepKind
	Host  ashlar.HostID
	Disk  ashlar.DiskID  // of StepWrite and StepRead
	Shard ashlar.ShardID // of StepGet, StepScan and StepCommit
	// Calls is how many there were. Of them Failed failed, for Reason the last time,
	// and Late were done without: they had not come back when the request could go on.
	Calls, Late, Failed uint32
	// Longest is the time that the longest call took, or had taken when it was done
	// without; Total is the sum of all.
	Longest, Total time.Duration
	Reason         string
}

func (s *Step) same(o *Step) bool {
	return s.Kind == o.Kind && s.Host == o.Host && s.Disk == o.Disk && s.Shard == o.Shard
}

const (
	// stepsMax bounds the steps of a request; the longest are kept.
	stepsMax = 64
	// reasonBytesMax bounds why a call failed.
	reasonBytesMax = 120
)

// Recorder gathers the steps of one request. It is safe for concurrent use, and all
// methods of a nil one do nothing.
type Recorder struct {
	id string
	mu struct {
		sync.Mutex
		steps   []Step
		open    []*Call
		leftOut uint32
		over    bool
	}
}

// NewRecorder returns a recorder for the request with the id.
func NewRecorder(id string) *Recorder { return &Recorder{id: id} }

type recorderKey struct{}

// WithRecorder returns a context whose calls are noted in r.
func WithRecorder(ctx context.Context, r *Recorder) context.Context {
	return context.WithValue(ctx, recorderKey{}, r)
}

// RecorderOf returns the recorder of a context, nil if nobody watches.
func RecorderOf(ctx context.Context) *Recorder {
	r, _ := ctx.Value(recorderKey{}).(*Recorder)
	return r
}

// Call is one call under way. A nil one is of a request that nobody watches.
type Call struct {
	r     *Recorder
	step  Step
	begin time.Time
}

// Begin notes that a call begins. Of the step, only what it is and whom it asks
// counts. One of the methods of the call says how it ends; one that has not ended
// when the request is over is late.
func (r *Recorder) Begin(s Step) *Call {
	if r == nil {
		return nil
	}
	c := &Call{r: r, step: s, begin: time.Now()}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.over {
		return nil
	}
	r.mu.open = append(r.mu.open, c)
	return c
}

// End says that the call returned.
func (c *Call) End(err error) {
	c.close(func(s *Step) {
		if err != nil {
			s.Failed, s.Reason = 1, reasonOf(err)
		}
	})
}

// Late says that the request does without the call's result.
func (c *Call) Late() { c.close(func(s *Step) { s.Late = 1 }) }

// Forget says that the call was given up before it mattered.
func (c *Call) Forget() { c.close(nil) }

// close counts the call as fn says, or not at all for nil. Only the first time counts.
func (c *Call) close(fn func(*Step)) {
	if c == nil {
		return
	}
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	at := slices.Index(c.r.mu.open, c)
	if at < 0 {
		return
	}
	c.r.mu.open = slices.Delete(c.r.mu.open, at, at+1)
	if fn != nil {
		c.r.countLocked(c, fn)
	}
}

func (r *Recorder) countLocked(c *Call, fn func(*Step)) {
	s := c.step
	s.Calls, s.Longest = 1, time.Since(c.begin)
	s.Total = s.Longest
	fn(&s)
	r.addLocked(s)
}

// addLocked adds to the step of the same kind and whereabouts. Where there is no
// room for another one, the shortest that did not fail makes room.
func (r *Recorder) addLocked(s Step) {
	for i := range r.mu.steps {
		if o := &r.mu.steps[i]; o.same(&s) {
			o.Calls, o.Late, o.Failed = o.Calls+s.Calls, o.Late+s.Late, o.Failed+s.Failed
			o.Longest, o.Total = max(o.Longest, s.Longest), o.Total+s.Total
			if s.Reason != "" {
				o.Reason = s.Reason
			}
			return
		}
	}
	if len(r.mu.steps) < stepsMax {
		r.mu.steps = append(r.mu.steps, s)
		return
	}
	r.mu.leftOut++
	least := slices.MinFunc(r.mu.steps, bySize)
	if bySize(least, s) < 0 {
		r.mu.steps[slices.Index(r.mu.steps, least)] = s
	}
}

// bySize orders steps by how much they have to say: failures, then time.
func bySize(a, b Step) int {
	if (a.Failed > 0) != (b.Failed > 0) {
		if a.Failed > 0 {
			return 1
		}
		return -1
	}
	return int(min(max(a.Longest-b.Longest, -1), 1))
}

// add takes in what a host tells.
func (r *Recorder) add(steps []Step) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range steps {
		if !r.mu.over {
			r.addLocked(s)
		}
	}
}

// Finish ends the record and returns it, those with the most to say first, and how
// many steps there was no room for. What comes later is not recorded.
func (r *Recorder) Finish() (steps []Step, leftOut uint32) {
	if r == nil {
		return nil, 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.mu.open {
		r.countLocked(c, func(s *Step) { s.Late = 1 })
	}
	steps = r.mu.steps
	r.mu.open, r.mu.steps, r.mu.over = nil, nil, true
	slices.SortStableFunc(steps, func(a, b Step) int { return bySize(b, a) })
	return steps, r.mu.leftOut
}

// reasonOf says in short why a call failed.
func reasonOf(err error) string {
	var leader *NotLeader
	var none *NoReplica
	text := ""
	switch {
	case errors.As(err, &leader):
		text = leader.Error()
	case errors.As(err, &none):
		text = none.Error()
	case errors.Is(err, context.DeadlineExceeded):
		text = "timed out"
	default:
		text = err.Error()
	}
	return text[:min(len(text), reasonBytesMax)]
}

func (c *codec) step(s *Step) {
	integer(c, &s.Kind)
	integer(c, &s.Host)
	c.raw(s.Disk[:])
	integer(c, &s.Shard)
	integer(c, &s.Calls)
	integer(c, &s.Late)
	integer(c, &s.Failed)
	integer(c, &s.Longest)
	integer(c, &s.Total)
	c.string(&s.Reason)
}

// stepBytesMin is the least that a step takes.
const stepBytesMin = 16 + 9

// tell puts what was recorded into the header of an answer.
func (r *Recorder) tell(h http.Header, name string) {
	if r == nil {
		return
	}
	steps, _ := r.Finish()
	c := &codec{}
	list(c, &steps, stepBytesMin, c.step)
	h.Set(name, base64.StdEncoding.EncodeToString(c.b))
}

// hear takes in what a host told in a header. What cannot be read is not taken: it
// only ever explains.
func (r *Recorder) hear(h http.Header) {
	text := h.Get(traceHeader)
	if r == nil || text == "" {
		return
	}
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return
	}
	var steps []Step
	if err := decode("wire: trace", b, func(c *codec) { list(c, &steps, stepBytesMin, c.step) }); err != nil || len(steps) > stepsMax {
		return
	}
	r.add(steps)
}
