package health

import "time"

// flight holds the I/Os that have begun and not ended. Slots are reused, so the
// memory is that of the greatest depth seen.
type flight struct {
	slots []slot
	free  []Ticket
}

type slot struct {
	op    Op
	began time.Time // zero = free
}

func (f *flight) len() int { return len(f.slots) - len(f.free) }

func (f *flight) add(op Op, now time.Time) Ticket {
	if n := len(f.free); n > 0 {
		t := f.free[n-1]
		f.free = f.free[:n-1]
		f.slots[t] = slot{op, now}
		return t
	}
	f.slots = append(f.slots, slot{op, now})
	return Ticket(len(f.slots) - 1)
}

func (f *flight) remove(t Ticket) (Op, time.Time) {
	s := f.slots[t]
	if s.began.IsZero() {
		panic("health: an I/O ended twice")
	}
	f.slots[t] = slot{}
	f.free = append(f.free, t)
	return s.op, s.began
}

func (f *flight) oldest() (op Op, began time.Time, ok bool) {
	for _, s := range f.slots {
		if !s.began.IsZero() && (!ok || s.began.Before(began)) {
			op, began, ok = s.op, s.began, true
		}
	}
	return op, began, ok
}
