package stripe

import (
	"math/bits"
	"sync"
	"time"

	"ashlar"
)

// Bounds of the hedge: how long a read may take before one more disk is asked.
const (
	hedgeMin = 5 * time.Millisecond
	hedgeMax = 500 * time.Millisecond
	// hedgeStart is used until enough reads were seen.
	hedgeStart   = 100 * time.Millisecond
	hedgeSamples = 32
	// hedgeShare is how many reads earn one hedge, hedgeSaved how many hedges
	// can be saved up: together they bound the extra load at a twentieth.
	hedgeShare = 20
	hedgeSaved = 16
	// decayAt halves the histogram, so that it follows the disks' behaviour.
	decayAt = 4096
	// smallRead separates reads that cost a seek from those that cost a transfer.
	smallRead = 128 * ashlar.KiB
)

// lateness learns from finished reads how late is late: the 95th percentile of
// the duration, by size class, in classes of a quarter of a power of two.
type lateness struct {
	mu     sync.Mutex
	class  [2]histogram
	tokens int // in hedgeShare-ths of a hedge
}

type histogram struct {
	count [4 * 40]uint32 // by quarter powers of two of microseconds
	total uint32
}

func newLateness() *lateness { return &lateness{tokens: hedgeSaved * hedgeShare} }

func sizeClass(n int) int {
	if n <= smallRead {
		return 0
	}
	return 1
}

// bucket maps a duration to its class; bound is the upper end of a class.
func bucket(d time.Duration) int {
	us := uint64(max(1, d.Microseconds()))
	exp := bits.Len64(us) - 1
	quarter := int(us<<2>>exp) & 3
	return min(4*exp+quarter, 4*40-1)
}

func bound(b int) time.Duration {
	exp, quarter := b/4, b%4
	return time.Duration(uint64(5+quarter)<<exp/4) * time.Microsecond
}

// seen records a read that succeeded.
func (l *lateness) seen(n int, d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tokens = min(l.tokens+1, hedgeSaved*hedgeShare)
	h := &l.class[sizeClass(n)]
	h.count[bucket(d)]++
	if h.total++; h.total >= decayAt {
		h.total = 0
		for i := range h.count {
			h.count[i] /= 2
			h.total += h.count[i]
		}
	}
}

// after returns how long a read of n bytes may take before it is late: twice
// the time that 95 of 100 reads needed, so that a disk under even load is not
// hedged at once.
func (l *lateness) after(n int) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := &l.class[sizeClass(n)]
	if h.total < hedgeSamples {
		return hedgeStart
	}
	left := h.total / 20
	for b := len(h.count) - 1; b >= 0; b-- {
		if h.count[b] > left {
			return min(max(2*bound(b), hedgeMin), hedgeMax)
		}
		left -= h.count[b]
	}
	return hedgeStart
}

// spend takes the right to hedge once, if there is one.
func (l *lateness) spend() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.tokens < hedgeShare {
		return false
	}
	l.tokens -= hedgeShare
	return true
}

// refund gives back what spend took, when there was nobody to ask.
func (l *lateness) refund() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tokens += hedgeShare
}

// Bounds of the time for which a disk that was late is asked last.
const (
	avoidMin = 500 * time.Millisecond
	avoidMax = 30 * time.Second
	// avoidAfter is the number of late reads in a row before a disk is avoided.
	avoidAfter = 2
)

// slowness remembers which disks were late, so that reads rebuild their pieces
// at once instead of waiting for each to be late again. When the time is over
// the disk is tried again.
type slowness struct {
	now func() time.Time
	mu  sync.Mutex
	by  map[ashlar.DiskID]*slow
}

type slow struct {
	inRow int
	until time.Time
	pause time.Duration
}

func newSlowness(now func() time.Time) *slowness {
	return &slowness{now: now, by: map[ashlar.DiskID]*slow{}}
}

// avoid reports whether the disk should be asked only if others do not suffice.
func (s *slowness) avoid(disk ashlar.DiskID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.by[disk]
	return d != nil && s.now().Before(d.until)
}

// late records a read that others overtook.
func (s *slowness) late(disk ashlar.DiskID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.by[disk]
	if d == nil {
		d = &slow{}
		s.by[disk] = d
	}
	if d.inRow++; d.inRow >= avoidAfter {
		d.pause = min(max(2*d.pause, avoidMin), avoidMax)
		d.until = s.now().Add(d.pause)
	}
}

// seen records how a read ended. One that succeeded clears the disk; one that
// ran into its deadline counts as late.
func (s *slowness) seen(disk ashlar.DiskID, ok, expired bool) {
	if !ok {
		if expired {
			s.late(disk)
		}
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := s.by[disk]; d != nil && !s.now().Before(d.until) {
		delete(s.by, disk)
	}
}
