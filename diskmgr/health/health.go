package health

import (
	"fmt"
	"time"
)

// State is how a disk feels. Higher is worse.
type State uint8

// The states. The numbers travel: append only.
const (
	Good    State = iota // reads and writes
	Suspect              // reads and writes, but better elsewhere
	Fenced               // reads only
	Failed               // neither
)

func (s State) String() string {
	return [...]string{"good", "suspect", "fenced", "failed"}[min(s, Failed)]
}

// Op is the kind of an I/O.
type Op uint8

// The kinds of I/O.
const (
	Read Op = iota
	Write
	Flush
	ops
)

func (o Op) String() string { return [...]string{"read", "write", "flush"}[min(o, Flush)] }

// Outcome is how an I/O ended.
type Outcome uint8

// The outcomes.
const (
	OK       Outcome = iota
	Error            // EIO and its like: these bytes, or this flush, failed
	Gone             // the device is no longer there
	ReadOnly         // the device refuses writes
	Ignored          // the caller's mistake or a bound above the device: says nothing of it
)

// Limits are the bounds of the rules in the package comment.
type Limits struct {
	ErrorsInRowMax, WriteErrorsMax, ReadErrorsMax int
	ErrorWindow                                   time.Duration
	HangAfter                                     time.Duration
	WindowLength                                  time.Duration
	WindowOpsMin                                  int
	SlowWindowsMax, FastWindowsMin                int
	SlowFloor                                     time.Duration
	SlowBaseline, SlowPeers                       int
}

// DefaultLimits are the limits that a daemon uses.
func DefaultLimits() Limits {
	return Limits{
		ErrorsInRowMax: 3, WriteErrorsMax: 3, ReadErrorsMax: 16, ErrorWindow: 10 * time.Minute,
		HangAfter:    30 * time.Second,
		WindowLength: 10 * time.Second, WindowOpsMin: 16, SlowWindowsMax: 3, FastWindowsMin: 6,
		SlowFloor: 50 * time.Millisecond, SlowBaseline: 8, SlowPeers: 4,
	}
}

// Latency is one number for each kind of I/O; zero is unknown.
type Latency [ops]time.Duration

// Counters are totals since the disk was opened.
type Counters struct {
	Ops, Errors, Bytes [ops]uint64
	// P50 and P99 are of all I/O since the disk was opened, P95 is of the last
	// window that was judged, and is what peers compare.
	P50, P95, P99 Latency
	// InFlight is the number of I/Os that have begun and not ended.
	InFlight int
}

// Machine is the state of one disk. The zero value is not usable: see New. It is
// not safe for concurrent use.
type Machine struct {
	limits   Limits
	baseline Latency

	state State
	why   string
	since time.Time

	failing                []place // of the errors since the last success
	readErrors, writeFails []time.Time
	slow                   [ops]streak
	windowFrom             time.Time
	window, total          [ops]histogram
	counters               Counters
	flight                 flight
}

// streak counts windows in a row.
type streak struct {
	slow, fast int
	suspect    bool
}

// New returns a machine in state Good. Baseline holds the 99th percentiles that
// were measured at claim.
func New(limits Limits, baseline Latency, now time.Time) *Machine {
	return &Machine{limits: limits, baseline: baseline, since: now, windowFrom: now}
}

// State returns the state, why it was entered, and when.
func (m *Machine) State() (State, string, time.Time) { return m.state, m.why, m.since }

// Counters returns the totals.
func (m *Machine) Counters() Counters {
	c := m.counters
	for op := range ops {
		c.P50[op], c.P99[op] = m.total[op].quantile(50), m.total[op].quantile(99)
	}
	c.InFlight = m.flight.len()
	return c
}

// Ticket names one I/O between Begin and End.
type Ticket int

// Begin says that an I/O starts.
func (m *Machine) Begin(op Op, now time.Time) Ticket { return m.flight.add(op, now) }

// End says how the I/O of the ticket ended. Off and bytes are its range.
func (m *Machine) End(t Ticket, off int64, bytes int, outcome Outcome, now time.Time) {
	op, began := m.flight.remove(t)
	if outcome == Ignored {
		return
	}
	m.counters.Ops[op]++
	if outcome == OK {
		m.counters.Bytes[op] += uint64(bytes)
		m.window[op].add(now.Sub(began))
		m.total[op].add(now.Sub(began))
		m.failing = m.failing[:0]
		return
	}
	m.counters.Errors[op]++
	m.judgeError(op, place{off, off + int64(bytes)}, outcome, now)
}

func (m *Machine) judgeError(op Op, at place, outcome Outcome, now time.Time) {
	switch {
	case outcome == Gone:
		m.worsen(Failed, "the device is gone", now)
	case outcome == ReadOnly:
		m.worsen(Fenced, "the device refuses writes: it is read-only", now)
	case op == Flush:
		m.worsen(Fenced, "a flush failed; what was written since the last good one may be lost", now)
	default:
		m.countError(op, at, now)
	}
}

// place is a range of the disk that holds something bad.
type place struct{ from, to int64 }

// noteFailing adds a place to the errors in a row. Readers that insist on one
// bad sector must not condemn the disk, whatever ranges round it they read: a
// range that overlaps a failing place is the same place, narrowed down.
func (m *Machine) noteFailing(at place) {
	for i, f := range m.failing {
		if f == at || at.from < f.to && f.from < at.to {
			m.failing[i] = place{max(f.from, at.from), min(f.to, at.to)}
			return
		}
	}
	if len(m.failing) < m.limits.ErrorsInRowMax {
		m.failing = append(m.failing, at)
	}
}

func (m *Machine) countError(op Op, at place, now time.Time) {
	m.noteFailing(at)
	if op == Write {
		m.writeFails = recent(append(m.writeFails, now), now.Add(-m.limits.ErrorWindow))
		if n := len(m.writeFails); n >= m.limits.WriteErrorsMax {
			m.worsen(Fenced, fmt.Sprintf("%d writes failed within %v", n, m.limits.ErrorWindow), now)
		}
	} else {
		m.readErrors = recent(append(m.readErrors, now), now.Add(-m.limits.ErrorWindow))
		if n := len(m.readErrors); n >= m.limits.ReadErrorsMax {
			m.worsen(Suspect, fmt.Sprintf("%d reads failed within %v", n, m.limits.ErrorWindow), now)
		}
	}
	if n := len(m.failing); n >= m.limits.ErrorsInRowMax {
		m.worsen(Failed, fmt.Sprintf("%d I/Os in a row failed at different places", n), now)
	}
}

// recent drops the times before from; the list stays as short as its limit
// makes it, because the limit is judged after every addition.
func recent(times []time.Time, from time.Time) []time.Time {
	i := 0
	for i < len(times) && times[i].Before(from) {
		i++
	}
	if excess := len(times) - i - errorsKeptMax; excess > 0 {
		i += excess
	}
	return append(times[:0], times[i:]...)
}

// errorsKeptMax bounds the memory of failures; it exceeds every sensible limit.
const errorsKeptMax = 256

// Fence takes the disk out of writes for a reason that the caller knows.
func (m *Machine) Fence(why string, now time.Time) { m.worsen(Fenced, why, now) }

// Tick lets time pass: it looks for I/O that hangs and judges a window when it
// is over. Peers are the medians of the 95th percentiles of comparable disks.
func (m *Machine) Tick(now time.Time, peers Latency) {
	if op, began, ok := m.flight.oldest(); ok && now.Sub(began) > m.limits.HangAfter {
		m.worsen(Failed, fmt.Sprintf("a %v has hung for %v", op, now.Sub(began).Round(time.Second)), now)
	}
	if now.Sub(m.windowFrom) < m.limits.WindowLength {
		return
	}
	m.windowFrom = now
	m.readErrors = recent(m.readErrors, now.Add(-m.limits.ErrorWindow))
	for op := range ops {
		m.judgeWindow(op, peers[op], now)
		m.window[op] = histogram{}
	}
	if m.state == Suspect && len(m.readErrors) < m.limits.ReadErrorsMax && !m.anySlow() {
		m.state, m.why, m.since = Good, "", now
	}
}

func (m *Machine) anySlow() bool {
	for _, s := range m.slow {
		if s.suspect {
			return true
		}
	}
	return false
}

func (m *Machine) judgeWindow(op Op, peer time.Duration, now time.Time) {
	w, s := &m.window[op], &m.slow[op]
	if w.count < uint64(m.limits.WindowOpsMin) {
		return
	}
	p95 := w.quantile(95)
	m.counters.P95[op] = p95
	limit := max(m.limits.SlowFloor, m.baseline[op]*time.Duration(m.limits.SlowBaseline), peer*time.Duration(m.limits.SlowPeers))
	if p95 <= limit {
		s.slow = 0
		s.fast++
		s.suspect = s.suspect && s.fast < m.limits.FastWindowsMin
		return
	}
	s.fast = 0
	s.slow++
	if s.slow >= m.limits.SlowWindowsMax {
		s.suspect = true
		m.worsen(Suspect, fmt.Sprintf("slow: 95 %% of %vs took up to %v, the limit is %v", op, p95, limit), now)
	}
}

// worsen moves to a worse state; a better or an equal one changes nothing.
func (m *Machine) worsen(to State, why string, now time.Time) {
	if to > m.state {
		m.state, m.why, m.since = to, why, now
	}
}
