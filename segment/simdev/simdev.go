// Package simdev is a block device in memory that fails the way real ones do.
//
// Writes go to a volatile cache; Flush moves them to the medium. A power cut
// decides for every 512-byte atom that is in the cache, by the device's own
// random source, whether the medium keeps the old bytes, the newest ones or
// any version written since the last flush; reads before the cut see the
// newest.
//
//	WriteAt ──► cache: atom → versions, oldest first ──Flush──► medium
//	                       │
//	                  Cut: each atom: old │ any version
//
// Faults are rules, looked up in the order in which they were added:
//
//	EIO          the call fails                     (read, write, flush)
//	Lost         the write is acknowledged and forgotten
//	Misdirected  the write lands elsewhere
//	Lie          the flush answers success and flushes nothing
//	Flip         one bit of what is read is wrong, on the way only
//	Hang         the call does not return until the rules are cleared
//	NoSpace      the write fails with ENOSPC
//
// Besides, Rot changes the medium, and Kill makes every call fail with EIO
// until Revive; DieAfter does so in the middle of a run, and Reboot is what
// comes after. The same seed, calls and rules give the same bytes: nothing
// here looks at a clock. All methods may be called concurrently, but then the
// order of calls is part of the input.
package simdev

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"unsafe"
)

// Atom is the unit that a power cut tears, in bytes.
const Atom = 512

// Op is what a rule applies to.
type Op uint8

// The operations.
const (
	Read Op = 1 << iota
	Write
	Flush
)

// Fault is what a rule does.
type Fault uint8

// The faults; the package comment says what each does.
const (
	EIO Fault = iota + 1
	Lost
	Misdirected
	Lie
	Flip
	Hang
	NoSpace
)

// Rule injects a fault into calls.
type Rule struct {
	Ops   Op
	Fault Fault
	// From and To bound the offsets that are hit; To 0 is no bound. Flushes have none.
	From, To int64
	// Skip calls that match are let through first, then Count are hit; Count 0 is all.
	Skip, Count int
	// Chance in 1/1000 that a matching call is hit; 0 is always.
	PerMille int
	// Shift is how far a misdirected write lands from where it belongs.
	Shift int64
}

// Device is the device. It satisfies segment.Device.
type Device struct {
	block int

	mu      sync.Mutex
	rng     *rand.Rand
	medium  []byte
	cache   map[int64][][]byte // atom number → versions
	rules   []*Rule
	dead    bool
	left    int           // calls until the device dies; negative: it does not
	cleared chan struct{} // closed when rules are cleared: hung calls go on
	counts  Counts
	trace   func(op Op, off int64, p []byte)
}

// Counts tells what the device was asked.
type Counts struct {
	Reads, Writes, Flushes, Faults int
	BytesRead, BytesWritten        int64
}

// New returns a device of zeros. bytes and block are multiples of Atom.
func New(bytes int64, block int, seed uint64) *Device {
	if bytes%Atom != 0 || block%Atom != 0 || bytes%int64(block) != 0 {
		panic(fmt.Sprintf("simdev: %d bytes in blocks of %d", bytes, block))
	}
	return &Device{
		block: block, rng: rand.New(rand.NewPCG(seed, 0x5eed)), medium: make([]byte, bytes),
		cache: map[int64][][]byte{}, left: -1, cleared: make(chan struct{}),
	}
}

// FromMedium returns a device whose medium is a copy of these bytes.
func FromMedium(medium []byte, block int, seed uint64) *Device {
	d := New(int64(len(medium)), block, seed)
	copy(d.medium, medium)
	return d
}

// Bytes is the length of the device.
func (d *Device) Bytes() int64 { return int64(len(d.medium)) }

// BlockBytes is the block size.
func (d *Device) BlockBytes() int { return d.block }

// Counts returns what was asked so far.
func (d *Device) Counts() Counts {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.counts
}

// Trace calls fn, under the device's lock, for every write (with its bytes)
// and every flush that succeeded.
func (d *Device) Trace(fn func(op Op, off int64, p []byte)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.trace = fn
}

// Inject adds a rule.
func (d *Device) Inject(r Rule) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rules = append(d.rules, &r)
}

// Clear removes all rules and lets hung calls go on.
func (d *Device) Clear() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rules = nil
	close(d.cleared)
	d.cleared = make(chan struct{})
}

// Kill makes every call fail, as a pulled disk does; Revive undoes it. The
// cache is lost like in a cut.
func (d *Device) Kill() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dead = true
	d.cutLocked(-1)
}

// DieAfter lets n more writes and flushes through, then the device is dead,
// its cache as it is: Reboot decides what of it survived.
func (d *Device) DieAfter(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.left = n
}

// Reboot cuts the power, keeping each cached atom with that chance in percent,
// and returns the device as it is after the power came back, without rules.
// Whoever still holds the old one finds it dead.
func (d *Device) Reboot(percent int) *Device {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cutLocked(percent)
	d.dead = true
	next := New(0, d.block, d.rng.Uint64())
	next.medium = d.medium
	d.medium = make([]byte, len(next.medium))
	return next
}

// Medium returns a copy of what is on the medium.
func (d *Device) Medium() []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]byte(nil), d.medium...)
}

// Revive brings a killed device back.
func (d *Device) Revive() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dead = false
}

// Cut is a power cut: every cached atom becomes old or any version since.
func (d *Device) Cut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cutLocked(d.rng.IntN(101))
}

// CutKeeping is a cut in which an atom survives with that chance in percent.
func (d *Device) CutKeeping(percent int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cutLocked(percent)
}

func (d *Device) cutLocked(percent int) {
	for a := int64(0); a < int64(len(d.medium)/Atom) && len(d.cache) > 0; a++ { // ordered: the same seed, the same cut
		versions, ok := d.cache[a]
		if !ok {
			continue
		}
		if d.rng.IntN(100) < percent {
			copy(d.medium[a*Atom:], versions[d.rng.IntN(len(versions))])
		}
		delete(d.cache, a)
	}
}

// Rot flips one bit of the medium in [off, off+n), or with zero set writes zeros there.
func (d *Device) Rot(off, n int64, zero bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.flushLocked()
	if zero {
		clear(d.medium[off : off+n])
		return
	}
	d.medium[off+d.rng.Int64N(n)] ^= 1 << d.rng.IntN(8)
}

// hit returns the rule that applies to the call, if any.
func (d *Device) hit(op Op, off, n int64) *Rule {
	for _, r := range d.rules {
		if r.Ops&op == 0 || op != Flush && (off+n <= r.From || r.To > 0 && off >= r.To) {
			continue
		}
		if r.Skip > 0 {
			r.Skip--
			continue
		}
		if r.PerMille > 0 && d.rng.IntN(1000) >= r.PerMille {
			continue
		}
		if r.Count > 0 {
			if r.Count--; r.Count == 0 {
				r.Ops = 0
			}
		}
		d.counts.Faults++
		return r
	}
	return nil
}

// begin takes the lock, waits out hangs and returns the fault to apply.
func (d *Device) begin(op Op, off, n int64) (Rule, error) {
	for {
		d.mu.Lock()
		if op != Read && d.left >= 0 {
			d.dead = d.dead || d.left == 0
			d.left = max(d.left-1, 0)
		}
		if d.dead {
			return Rule{}, syscall.EIO
		}
		r := d.hit(op, off, n)
		if r == nil {
			return Rule{}, nil
		}
		hit := *r
		if hit.Fault != Hang {
			return hit, nil
		}
		cleared := d.cleared
		d.mu.Unlock()
		<-cleared
	}
}

func (d *Device) check(p []byte, off int64) {
	if off < 0 || off%int64(d.block) != 0 || len(p)%d.block != 0 || off+int64(len(p)) > int64(len(d.medium)) ||
		len(p) > 0 && uintptr(unsafe.Pointer(unsafe.SliceData(p)))%uintptr(d.block) != 0 {
		panic(fmt.Sprintf("simdev: access of %d bytes at %d breaks the rules of the device", len(p), off))
	}
}

// ReadAt sees the newest version of every atom.
func (d *Device) ReadAt(p []byte, off int64) (int, error) {
	d.check(p, off)
	r, err := d.begin(Read, off, int64(len(p)))
	defer d.mu.Unlock()
	if err != nil || r.Fault == EIO {
		return 0, syscall.EIO
	}
	d.counts.Reads++
	d.counts.BytesRead += int64(len(p))
	copy(p, d.medium[off:])
	if len(d.cache) > 0 {
		for i := 0; i < len(p); i += Atom {
			if v := d.cache[(off+int64(i))/Atom]; v != nil {
				copy(p[i:i+Atom], v[len(v)-1])
			}
		}
	}
	if r.Fault == Flip {
		p[d.rng.IntN(len(p))] ^= 1 << d.rng.IntN(8)
	}
	return len(p), nil
}

// WriteAt puts the bytes in the cache. A write that fails may have reached it in part.
func (d *Device) WriteAt(p []byte, off int64) (int, error) {
	d.check(p, off)
	wasDead := d.isDead()
	r, err := d.begin(Write, off, int64(len(p)))
	defer d.mu.Unlock()
	if err != nil {
		if !wasDead { // it died in the middle of this call
			d.storeLocked(p[:d.rng.IntN(len(p)/Atom+1)*Atom], off)
		}
		return 0, err
	}
	switch r.Fault {
	case EIO, NoSpace:
		d.storeLocked(p[:d.rng.IntN(len(p)/Atom+1)*Atom], off)
		if r.Fault == NoSpace {
			return 0, syscall.ENOSPC
		}
		return 0, syscall.EIO
	case Lost:
		return len(p), nil
	case Misdirected:
		off = min(max(off+r.Shift, 0), int64(len(d.medium)-len(p)))
	}
	d.counts.Writes++
	d.counts.BytesWritten += int64(len(p))
	if d.trace != nil {
		d.trace(Write, off, p)
	}
	d.storeLocked(p, off)
	return len(p), nil
}

func (d *Device) isDead() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.dead
}

func (d *Device) storeLocked(p []byte, off int64) {
	own := append([]byte(nil), p...)
	for i := 0; i < len(own); i += Atom {
		a := (off + int64(i)) / Atom
		d.cache[a] = append(d.cache[a], own[i:i+Atom:i+Atom])
	}
}

// Flush moves the cache to the medium. After an injected EIO the cache is
// dropped and the next Flush succeeds, as on Linux.
func (d *Device) Flush() error {
	r, err := d.begin(Flush, 0, 0)
	defer d.mu.Unlock()
	if err != nil {
		return err
	}
	switch r.Fault {
	case EIO:
		d.cutLocked(d.rng.IntN(101))
		return syscall.EIO
	case Lie:
		return nil
	}
	d.counts.Flushes++
	d.flushLocked()
	if d.trace != nil {
		d.trace(Flush, 0, nil)
	}
	return nil
}

func (d *Device) flushLocked() {
	for a, versions := range d.cache {
		copy(d.medium[a*Atom:], versions[len(versions)-1])
	}
	clear(d.cache)
}

// Discard fills the range with noise, so that who relies on its content fails.
func (d *Device) Discard(off, length int64) error {
	r, err := d.begin(Write, off, length)
	defer d.mu.Unlock()
	if err != nil || r.Fault == EIO {
		return syscall.EIO
	}
	noise := make([]byte, length)
	for i := range noise {
		noise[i] = byte(d.rng.Uint32())
	}
	if d.trace != nil {
		d.trace(Write, off, noise)
	}
	d.storeLocked(noise, off)
	return nil
}
