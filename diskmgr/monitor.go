package diskmgr

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"ashlar"
	"ashlar/diskmgr/blockdev"
	"ashlar/diskmgr/health"
)

// monitor is an IO that keeps the accounts of the IO below it and refuses what
// the state of health forbids.
type monitor struct {
	blockdev.IO
	subject string
	now     func() time.Time
	changed func(health.State, string)

	mu struct {
		sync.Mutex
		machine *health.Machine
	}
}

func newMonitor(under blockdev.IO, subject string, baseline health.Latency, o *OpenOptions) *monitor {
	m := &monitor{IO: under, subject: subject, now: o.Now, changed: o.Changed}
	m.mu.machine = health.New(o.Limits, baseline, o.Now())
	return m
}

// ReadAt implements blockdev.IO.
func (m *monitor) ReadAt(p []byte, off int64) (int, error) {
	return m.run(health.Read, off, func() (int, error) { return m.IO.ReadAt(p, off) })
}

// WriteAt implements blockdev.IO.
func (m *monitor) WriteAt(p []byte, off int64) (int, error) {
	return m.run(health.Write, off, func() (int, error) { return m.IO.WriteAt(p, off) })
}

// Writes implements blockdev.Starter. A series counts as one write, from its first
// start to the end of its wait.
func (m *monitor) Writes() (start func(p []byte, off int64), wait func() error) {
	begin, end := blockdev.Writes(m.IO)
	if begin == nil {
		return nil, nil
	}
	if err := m.allowed(health.Write); err != nil {
		return func([]byte, int64) {}, func() error { return err }
	}
	var ticket health.Ticket
	var at int64
	var bytes int
	start = func(p []byte, off int64) {
		if bytes == 0 {
			at = off
			m.mu.Lock()
			ticket = m.mu.machine.Begin(health.Write, m.now())
			m.mu.Unlock()
		}
		bytes += len(p)
		begin(p, off)
	}
	wait = func() error {
		err := end()
		if bytes > 0 {
			err = m.end(health.Write, ticket, at, bytes, err)
		}
		return err
	}
	return start, wait
}

// Flush implements blockdev.IO.
func (m *monitor) Flush() error {
	_, err := m.run(health.Flush, 0, func() (int, error) { return 0, m.IO.Flush() })
	return err
}

// Discard implements blockdev.IO. A failed discard loses nothing and is not held
// against the disk.
func (m *monitor) Discard(off, length int64) error {
	if err := m.allowed(health.Write); err != nil {
		return err
	}
	return m.IO.Discard(off, length)
}

func (m *monitor) run(op health.Op, off int64, call func() (int, error)) (int, error) {
	if err := m.allowed(op); err != nil {
		return 0, err
	}
	m.mu.Lock()
	ticket := m.mu.machine.Begin(op, m.now())
	m.mu.Unlock()
	n, err := call()
	return n, m.end(op, ticket, off, n, err)
}

// end accounts for an I/O that ended with err, and returns what its caller is told.
func (m *monitor) end(op health.Op, ticket health.Ticket, off int64, n int, err error) error {
	m.apply(func(h *health.Machine) { h.End(ticket, off, n, outcomeOf(op, err), m.now()) })
	if err == nil && op != health.Read {
		return m.allowed(op) // fenced while it was under way: nobody may count on it
	}
	return err
}

// allowed returns the refusal that the state of health demands, or nil.
func (m *monitor) allowed(op health.Op) error {
	m.mu.Lock()
	state, why, _ := m.mu.machine.State()
	m.mu.Unlock()
	if state < health.Fenced || (state == health.Fenced && op == health.Read) {
		return nil
	}
	return ashlar.E("diskmgr: "+op.String(), m.subject, ashlar.Unavailable, fmt.Errorf("the disk is %v: %s", state, why))
}

// apply runs one step of the machine and tells the owner of a new state.
func (m *monitor) apply(step func(*health.Machine)) {
	m.mu.Lock()
	before, _, _ := m.mu.machine.State()
	step(m.mu.machine)
	after, why, _ := m.mu.machine.State()
	m.mu.Unlock()
	if after != before && m.changed != nil {
		m.changed(after, why)
	}
}

func outcomeOf(op health.Op, err error) health.Outcome {
	switch {
	case err == nil:
		return health.OK
	case errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENOMEDIUM):
		return health.Gone
	case op != health.Read && (errors.Is(err, unix.EROFS) || errors.Is(err, unix.EPERM)):
		return health.ReadOnly
	case op != health.Flush && (ashlar.Is(err, ashlar.Invalid) || ashlar.Is(err, ashlar.Full)):
		return health.Ignored
	default:
		return health.Error
	}
}
