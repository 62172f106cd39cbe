package stripe

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"ashlar"
	"ashlar/daemon/wire"
)

// traced runs f with a recorder in its context and returns the steps at pieces, by
// the host that has the disk.
func traced(t *testing.T, kind wire.StepKind, f func(context.Context)) map[ashlar.HostID]wire.Step {
	t.Helper()
	rec := wire.NewRecorder("R")
	f(wire.WithRecorder(t.Context(), rec))
	steps, _ := rec.Finish()
	by := map[ashlar.HostID]wire.Step{}
	for _, s := range steps {
		if s.Kind != kind {
			continue
		}
		if by[s.Host].Calls != 0 || s.Disk != (ashlar.DiskID{byte(s.Host)}) || s.Calls == 0 {
			t.Errorf("step %+v", s)
		}
		by[s.Host] = s
	}
	return by
}

// TestStepsNameDisks: what a coordinator in another process did for a request comes
// back with the answer, whatever that is.
func TestStepsNameDisks(t *testing.T) {
	k := newCluster(t, 12)
	s := networked(t, k, func(id ashlar.HostID) wire.Pieces { return k.hosts[id] })
	data := randomBytes(3_000_000, 1)
	write := func(ctx context.Context) (ashlar.Extent, error) {
		return s.WriteStripes(ctx, wire.WriteRequest{Key: "k", Bytes: int64(len(data))}, bytes.NewReader(data))
	}
	var ext ashlar.Extent
	var err error

	t.Run("late write", func(t *testing.T) {
		k.disks[4].set(fault{hang: true})
		steps := traced(t, wire.StepWrite, func(ctx context.Context) { ext, err = write(ctx) })
		k.disks[4].set(fault{})
		if err != nil || len(steps) != 12 || steps[5].Late != 1 || steps[5].Failed != 0 || steps[5].Longest == 0 {
			t.Errorf("%v, %d disks, the one that hangs: %+v", err, len(steps), steps[5])
		}
	})
	t.Run("failed write", func(t *testing.T) {
		for _, d := range k.disks[:3] {
			d.set(fault{dead: true})
		}
		steps := traced(t, wire.StepWrite, func(ctx context.Context) { _, err = write(ctx) })
		for i, d := range k.disks[:3] {
			d.set(fault{})
			if s := steps[ashlar.HostID(i+1)]; s.Failed != 1 || !strings.Contains(s.Reason, "dead") {
				t.Errorf("a dead disk: %+v", s)
			}
		}
		if !ashlar.Is(err, ashlar.Unavailable) {
			t.Error(err)
		}
	})
	read := func(ctx context.Context, from, n uint64) (got []byte, err error) {
		body, err := s.ReadStripes(ctx, wire.ReadRequest{Key: "k", Extents: []ashlar.Extent{ext}, Off: from, Length: n})
		if err != nil {
			return nil, err
		}
		defer body.Close()
		got = make([]byte, n)
		_, err = io.ReadFull(body, got) // not beyond, as a consumer that knows the length
		return got, err
	}
	t.Run("late read", func(t *testing.T) {
		k.disks[2].set(fault{delay: time.Hour})
		var got []byte
		steps := traced(t, wire.StepRead, func(ctx context.Context) { got, err = read(ctx, 0, ext.Bytes) })
		k.disks[2].set(fault{})
		if err != nil || !bytes.Equal(got, data) || len(steps) < 9 || steps[3].Late != 1 || steps[3].Longest == 0 {
			t.Errorf("%v, %d disks, the late one: %+v", err, len(steps), steps[3])
		}
	})
	t.Run("failed read", func(t *testing.T) {
		for _, d := range k.disks[:5] {
			d.set(fault{dead: true})
		}
		steps := traced(t, wire.StepRead, func(ctx context.Context) { _, err = read(ctx, 0, ext.Bytes) })
		failed := 0
		for host, s := range steps {
			if s.Failed > 0 && host <= 5 && strings.Contains(s.Reason, "dead") {
				failed++
			} else if s.Failed > 0 {
				t.Errorf("host %d: %+v", host, s)
			}
		}
		if !ashlar.Is(err, ashlar.Unavailable) || failed != 5 {
			t.Errorf("%v, %d disks failed", err, failed)
		}
	})
}
