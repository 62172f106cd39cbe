package segment

import (
	"context"
	"errors"
	"testing"
	"time"
)

// TestOneFailureIsSaidOnce: all callers meet it, and none goes on.
func TestOneFailureIsSaidOnce(t *testing.T) {
	var b bench
	var s Side
	broken := errors.New("broken")
	op := func(context.Context, int, int64) error { return broken }
	err := b.spread(t.Context(), &s, 16, time.Hour, op, func() error { t.Error("the turn went on to its end"); return nil })
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
	if err := b.spread(t.Context(), &s, 16, time.Hour, one, func() error { return nil }); err != broken {
		t.Errorf("%v", err)
	}
}
