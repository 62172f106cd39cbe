package buffer

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"ashlar"
)

func TestSizeRoundsUpByAnEighthAtMost(t *testing.T) {
	for n := 1; n < 64*ashlar.MiB; n += 1 + n/37 {
		s := Size(n)
		if s < int64(n) || s%page != 0 || (n > page && s > int64(n)+max(page, int64(n)/steps)) || Size(int(s)) != s {
			t.Fatalf("Size(%d) = %d", n, s)
		}
	}
	if Size(2*ashlar.MiB) != 2*ashlar.MiB {
		t.Fatal("a power of two is not its own class")
	}
}

// TestMemoryStaysInTheBudget hammers two shares with random sizes and checks
// the bound at every step and that everything comes back.
func TestMemoryStaysInTheBudget(t *testing.T) {
	p := NewPool()
	t.Cleanup(p.Close)
	shares := []*Share{p.Share(4 * ashlar.MiB), p.Share(2 * ashlar.MiB)}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(g)))
			for range 200 {
				s := shares[r.IntN(2)]
				n := 1 + r.IntN(300*ashlar.KiB)
				l, err := s.Lease(t.Context(), 2*Size(n))
				if err != nil {
					t.Error(err)
					return
				}
				a, errA := l.Get(n)
				b, errB := l.Get(n)
				if errA != nil || errB != nil {
					t.Error(errA, errB)
					return
				}
				a.B[0], b.B[n-1] = 1, 2
				if _, err := l.Get(page + 1); err == nil {
					t.Error("drew more than was leased")
				}
				p.mu.Lock()
				if p.total > p.limit {
					t.Errorf("%d bytes of %d", p.total, p.limit)
				}
				p.mu.Unlock()
				a.Retain().Release()
				if r.IntN(2) == 0 {
					l.Close()
				}
				a.Release()
				b.Release()
				l.Close()
			}
		})
	}
	wg.Wait()
	for i, s := range shares {
		if s.Used() != 0 {
			t.Errorf("share %d still holds %d bytes", i, s.Used())
		}
	}
}

func TestLeaseWaitsAndTellsWhy(t *testing.T) {
	s := NewPool().Share(64 * ashlar.KiB)
	l, err := s.Lease(t.Context(), 64*ashlar.KiB)
	if err != nil {
		t.Fatal(err)
	}
	if s.TryLease(page) != nil {
		t.Fatal("leased beyond the budget")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := s.Lease(ctx, page); !ashlar.Is(err, ashlar.Busy) {
		t.Fatalf("got %v", err)
	}
	if _, err := s.Lease(t.Context(), 65*ashlar.KiB); !ashlar.Is(err, ashlar.Invalid) {
		t.Fatalf("got %v", err)
	}
	b, _ := l.Get(10)
	l.Close()
	if s.Used() != page {
		t.Fatalf("%d bytes used while a buffer outlives its lease", s.Used())
	}
	b.Release()
	if s.Used() != 0 {
		t.Fatal("the weight did not come back")
	}
}

func TestMoveChangesWhoPays(t *testing.T) {
	p := NewPool()
	one, two := p.Share(page), p.Share(page)
	a, _ := one.Lease(t.Context(), page)
	b, _ := two.Lease(t.Context(), page)
	buf, _ := a.Get(100)
	if !buf.Move(b) || buf.Move(b) {
		t.Fatal("a move was refused, or charged twice")
	}
	if _, err := a.Get(100); err != nil {
		t.Fatalf("the first lease was not credited: %v", err)
	}
	a.Close()
	b.Close()
	buf.Release()
	if one.Used() != page || two.Used() != 0 {
		t.Fatalf("used %d and %d", one.Used(), two.Used())
	}
}
