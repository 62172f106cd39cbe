package faultdisk

import (
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	blockBytes = 4096
	atomBytes  = 512
	// cachedBlocksMax bounds the volatile cache, in blocks; beyond it the disk
	// writes back some of its own accord.
	cachedBlocksMax = 32 << 10
	// eventsMax bounds the log of a disk.
	eventsMax = 10_000
)

// cached is a block that was written since it was last on the medium.
type cached struct {
	versions [][]byte // oldest first
	stuck    bool     // a flush failed on it: it stays readable and is never written back
}

func (c *cached) newest() []byte { return c.versions[len(c.versions)-1] }

// Disk is one disk of a rig. All methods may be called concurrently.
type Disk struct {
	number int
	file   string
	path   string

	mu struct {
		sync.Mutex
		rng     *rand.Rand
		medium  []byte
		cache   map[int64]*cached // by block number
		rules   []*Rule
		dead    bool
		cleared chan struct{} // closed by Clear: hung and delayed calls go on
		counts  Counts
		events  []Event
	}
}

func newDisk(number int, bytes int64, seed uint64) (*Disk, error) {
	medium, err := unix.Mmap(-1, 0, int(bytes), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	d := &Disk{number: number}
	d.mu.rng = rand.New(rand.NewPCG(seed, uint64(number)))
	d.mu.medium, d.mu.cache, d.mu.cleared = medium, map[int64]*cached{}, make(chan struct{})
	d.mu.counts.Faults = map[Fault]int{}
	return d, nil
}

// Path is the block device, or the file where the rig has no loop devices.
func (d *Disk) Path() string { return d.path }

// File is the file of the FUSE mount, below the loop device.
func (d *Disk) File() string { return d.file }

// Bytes is the size of the disk.
func (d *Disk) Bytes() int64 { return int64(len(d.mu.medium)) }

// Inject adds a rule. One that names an operation that its fault cannot be done
// to is a mistake of the test and panics.
func (d *Disk) Inject(r Rule) {
	if r.Ops == 0 {
		r.Ops = r.Fault.applies()
	}
	if r.Ops&^r.Fault.applies() != 0 {
		panic("faultdisk: " + r.Fault.String() + " cannot be done to that operation")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.rules = append(d.mu.rules, &r)
}

// Clear removes all rules and lets hung and delayed calls go on.
func (d *Disk) Clear() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.rules = nil
	d.releaseLocked()
}

func (d *Disk) releaseLocked() {
	close(d.mu.cleared)
	d.mu.cleared = make(chan struct{})
}

// PowerCut takes the power away: of what was written since the last flush, each
// atom (512 or 4096 bytes) is old, or any version since, with a chance that is
// itself random. Every I/O, also one that hangs now, fails until PowerOn. Rules
// stay.
func (d *Disk) PowerCut(atom int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.noteLocked(Event{What: "power cut"})
	d.cutLocked(atom)
}

func (d *Disk) cutLocked(atom int) {
	keep := d.mu.rng.IntN(101)
	for _, n := range slices.Sorted(maps.Keys(d.mu.cache)) {
		c := d.mu.cache[n]
		for at := 0; at < blockBytes; at += atom {
			if d.mu.rng.IntN(100) < keep {
				v := c.versions[d.mu.rng.IntN(len(c.versions))]
				copy(d.mu.medium[n*blockBytes+int64(at):], v[at:at+atom])
			}
		}
	}
	clear(d.mu.cache)
	d.mu.dead = true
	d.releaseLocked()
}

// PowerOn gives the power back.
func (d *Disk) PowerOn() { d.setDead(false, "power on") }

// Kill makes every I/O fail with EIO, as if the disk had been pulled; the cache
// keeps its power. Revive undoes it.
func (d *Disk) Kill() { d.setDead(true, "kill") }

// Revive undoes Kill.
func (d *Disk) Revive() { d.setDead(false, "revive") }

func (d *Disk) setDead(dead bool, what string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.noteLocked(Event{What: what})
	d.mu.dead = dead
	if dead {
		d.releaseLocked()
	}
}

// Rot changes bytes of the medium behind the disk's back: to zeros, or one
// random bit of the range.
func (d *Disk) Rot(off, length int64, zero bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.noteLocked(Event{What: "rot", Off: off, Bytes: length})
	if zero {
		clear(d.mu.medium[off : off+length])
		return
	}
	bit := d.mu.rng.Int64N(length * 8)
	d.mu.medium[off+bit/8] ^= 1 << (bit % 8)
}

// Medium returns a copy of that part of the medium: what is there when the
// power fails now and nothing of the cache survives.
func (d *Disk) Medium(off, length int64) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.mu.medium[off : off+length])
}

// Counts returns what was asked so far.
func (d *Disk) Counts() Counts {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.mu.counts
	c.Faults = maps.Clone(c.Faults)
	return c
}

// Events returns the log of faults, oldest first, at most ten thousand.
func (d *Disk) Events() []Event {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.mu.events)
}

func (d *Disk) noteLocked(e Event) {
	if len(d.mu.events) < eventsMax {
		e.Time, e.Disk = time.Now(), d.number
		d.mu.events = append(d.mu.events, e)
	}
}

// meet finds the rule that fires for a call, if any, and waits where that is
// what it does. It returns with the lock held, or with the errno of a dead disk
// and without it.
func (d *Disk) meet(op Op, off, length int64) (Rule, syscall.Errno) {
	d.mu.Lock()
	rule := d.fireLocked(op, off, length)
	if rule.Fault == Hang || rule.Fault == Delay {
		cleared := d.mu.cleared
		d.mu.Unlock()
		var late <-chan time.Time
		if rule.Fault == Delay {
			late = time.After(rule.Delay)
		}
		select {
		case <-cleared:
		case <-late:
		}
		d.mu.Lock()
	}
	if d.mu.dead {
		d.mu.Unlock()
		return rule, syscall.EIO
	}
	return rule, 0
}

func (d *Disk) fireLocked(op Op, off, length int64) Rule {
	if d.mu.dead {
		return Rule{}
	}
	for _, r := range d.mu.rules {
		if !r.matches(op, off, length) {
			continue
		}
		if r.seen++; r.seen <= r.Skip || r.Chance > 0 && d.mu.rng.Float64() >= r.Chance {
			continue
		}
		r.hit++
		d.mu.counts.Faults[r.Fault]++
		d.noteLocked(Event{What: r.Fault.String(), Op: op, Off: off, Bytes: length})
		return *r
	}
	return Rule{}
}

func (d *Disk) read(p []byte, off int64) syscall.Errno {
	rule, errno := d.meet(Read, off, int64(len(p)))
	if errno != 0 {
		return errno
	}
	defer d.mu.Unlock()
	d.mu.counts.Reads++
	d.mu.counts.BytesRead += int64(len(p))
	switch rule.Fault {
	case EIO:
		return syscall.EIO
	case Cut:
		d.cutLocked(atomBytes)
		return syscall.EIO
	}
	copy(p, d.mu.medium[off:])
	for done := 0; done < len(p); {
		n, at := split(off + int64(done))
		length := min(blockBytes-at, len(p)-done)
		if c := d.mu.cache[n]; c != nil {
			copy(p[done:done+length], c.newest()[at:])
		}
		done += length
	}
	if rule.Fault == Flip {
		bit := d.mu.rng.IntN(len(p) * 8)
		p[bit/8] ^= 1 << (bit % 8)
	}
	return 0
}

// split cuts an offset into block number and place in the block.
func split(off int64) (n int64, at int) { return off / blockBytes, int(off % blockBytes) }

func (d *Disk) write(p []byte, off int64) syscall.Errno {
	rule, errno := d.meet(Write, off, int64(len(p)))
	if errno != 0 {
		return errno
	}
	defer d.mu.Unlock()
	d.mu.counts.Writes++
	d.mu.counts.BytesWritten += int64(len(p))
	switch rule.Fault {
	case EIO:
		return syscall.EIO
	case ENOSPC:
		return syscall.ENOSPC
	case Lost:
		return 0
	case Misdirected:
		off = min(max(off+rule.Shift, 0), int64(len(d.mu.medium)-len(p)))
	case Short:
		p = p[:d.mu.rng.IntN(len(p)/atomBytes+1)*atomBytes]
	case Torn:
		for at := 0; at+atomBytes <= len(p); at += atomBytes {
			if d.mu.rng.IntN(2) == 0 {
				d.storeLocked(p[at:at+atomBytes], off+int64(at))
			}
		}
		return syscall.EIO
	case Cut:
		d.storeLocked(p, off)
		d.cutLocked(atomBytes)
		return syscall.EIO
	}
	d.storeLocked(p, off)
	return 0
}

// storeLocked puts bytes into the cache, as new versions of their blocks.
func (d *Disk) storeLocked(p []byte, off int64) {
	for len(p) > 0 {
		n, at := split(off)
		length := min(blockBytes-at, len(p))
		c := d.mu.cache[n]
		if c == nil {
			c = &cached{}
			d.mu.cache[n] = c
		}
		v := make([]byte, blockBytes)
		if length < blockBytes {
			copy(v, d.mu.medium[n*blockBytes:])
			if len(c.versions) > 0 {
				copy(v, c.newest())
			}
		}
		copy(v[at:], p[:length])
		c.versions, c.stuck = append(c.versions, v), false
		p, off = p[length:], off+int64(length)
	}
	for n := range d.mu.cache {
		if len(d.mu.cache) <= cachedBlocksMax {
			break
		}
		d.writeBackLocked(n)
	}
}

func (d *Disk) writeBackLocked(n int64) {
	copy(d.mu.medium[n*blockBytes:], d.mu.cache[n].newest())
	delete(d.mu.cache, n)
}

func (d *Disk) flush() syscall.Errno {
	rule, errno := d.meet(Flush, 0, 0)
	if errno != 0 {
		return errno
	}
	defer d.mu.Unlock()
	d.mu.counts.Flushes++
	if rule.Fault == Cut {
		d.cutLocked(atomBytes)
		return syscall.EIO
	}
	for n, c := range d.mu.cache {
		switch {
		case rule.Fault == EIO:
			c.stuck = true
		case rule.Fault != Lie && !c.stuck:
			d.writeBackLocked(n)
		}
	}
	if rule.Fault == EIO {
		return syscall.EIO
	}
	return 0
}

// discard zeroes a range at once, or as a write if it must be zeros.
func (d *Disk) discard(off, length int64, mustZero bool) syscall.Errno {
	if mustZero {
		return d.write(make([]byte, length), off)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mu.dead {
		return syscall.EIO
	}
	d.mu.counts.Discards++
	end := off + length
	clear(d.mu.medium[off:end])
	for n, c := range d.mu.cache {
		if from, to := n*blockBytes, (n+1)*blockBytes; from >= off && to <= end {
			delete(d.mu.cache, n)
		} else if from < end && to > off {
			clear(c.newest()[max(off-from, 0):min(end-from, blockBytes)])
		}
	}
	return 0
}
