package segment

import (
	"context"
	"errors"
	"math"
	"sync/atomic"
	"testing"
	"time"
)

// TestOneFailureIsSaidOnce: all callers meet it, and none goes on.
func TestOneFailureIsSaidOnce(t *testing.T) {
	var b bench
	var s Side
	broken := errors.New("broken")
	op := func(context.Context, int, int64) error { return broken }
	err := b.spread(t.Context(), &s, 16, time.Hour, turn{operation: op, most: math.MaxInt64, end: func(context.Context, int64) error {
		t.Error("the turn went on to its end")
		return nil
	}})
	if err != broken || s.Operations != 0 { // joined errors are another one
		t.Errorf("%d operations, %v", s.Operations, err)
	}
	one := func(ctx context.Context, caller int, _ int64) error {
		if caller == 3 {
			return broken
		}
		<-ctx.Done() // as an append does that waits for the device
		return context.Cause(ctx)
	}
	if err := b.spread(t.Context(), &s, 16, time.Hour, turn{operation: one, most: math.MaxInt64}); err != broken {
		t.Errorf("%v", err)
	}
}

// TestATurnEndsWithItsNumbers: each is done once, and the end is told what comes next.
func TestATurnEndsWithItsNumbers(t *testing.T) {
	var b bench
	var done [100]atomic.Int32
	s, told := Side{Operations: 40}, int64(0)
	err := b.spread(t.Context(), &s, 16, time.Hour, turn{most: 90, operation: func(_ context.Context, _ int, n int64) error {
		done[n].Add(1)
		return nil
	}, end: func(_ context.Context, next int64) error {
		told = next
		return nil
	}})
	if err != nil || s.Operations != 90 || told != 90 {
		t.Errorf("%d operations, told %d, %v", s.Operations, told, err)
	}
	for n := range done {
		want := int32(0)
		if n >= 40 && n < 90 {
			want = 1
		}
		if got := done[n].Load(); got != want {
			t.Errorf("number %d was done %d times", n, got)
		}
	}
}
