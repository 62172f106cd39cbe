package stripe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"

	"ashlar"
	"ashlar/daemon/buffer"
	"ashlar/daemon/client"
	"ashlar/daemon/wire"
	"ashlar/placement/topology"
)

func randomBytes(n int, seed uint64) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(b)
	return b
}

// dribble returns odd amounts, as a socket does.
type dribble struct {
	r   io.Reader
	rnd *rand.Rand
}

func (d dribble) Read(p []byte) (int, error) {
	return d.r.Read(p[:min(len(p), 1+d.rnd.IntN(100_000))])
}

func (k *cluster) write(t testing.TB, key string, data []byte) ashlar.Extent {
	t.Helper()
	ext, err := k.c.WriteStripes(context.Background(), wire.WriteRequest{Key: key, Bytes: int64(len(data))}, bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return ext
}

// gateway reads as a gateway does: a stream that others took the memory of goes on.
func (k *cluster) gateway() *client.Stripes {
	return client.NewStripes(k.c.cfg.Maps, func(ashlar.HostID) (wire.Stripes, error) { return k.c, nil }, "")
}

func (k *cluster) read(key string, off, n int, extents ...ashlar.Extent) ([]byte, error) {
	r, err := k.gateway().ReadStripes(context.Background(), wire.ReadRequest{
		Key: key, Extents: extents, Off: uint64(off), Length: uint64(n),
	})
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func (k *cluster) mustRead(t testing.TB, key string, data []byte, off, n int, extents ...ashlar.Extent) {
	t.Helper()
	got, err := k.read(key, off, n, extents...)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, data[off:off+n]) {
		t.Fatalf("%d bytes from %d: wrong bytes", n, off)
	}
}

func TestWhatIsWrittenIsReadInAnySizeAndRange(t *testing.T) {
	for _, code := range []ashlar.Code{{K: 8, M: 4}, {K: 4, M: 2}, {K: 1, M: 2}, {K: 3, M: 0}} {
		k := newCluster(t, 12, codes(code, ashlar.Code{K: 1, M: 2}))
		stripe, rnd := int(k.m.Load().Settings.StripeBytes), rand.New(rand.NewPCG(1, 2))
		for _, n := range []int{0, 1, 4096, 128 * ashlar.KiB, 128*ashlar.KiB + 1, ashlar.MiB, stripe - 1, stripe, stripe + 1, 2*stripe + 777_777} {
			key := fmt.Sprint(code, n)
			data := randomBytes(n, uint64(n))
			for _, announced := range []int64{int64(n), -1} {
				ext, err := k.c.WriteStripes(t.Context(), wire.WriteRequest{Key: key, Bytes: announced}, dribble{bytes.NewReader(data), rnd})
				if err != nil || ext.Bytes != uint64(n) {
					t.Fatalf("%s announced %d: %v, %d bytes", key, announced, err, ext.Bytes)
				}
				k.mustRead(t, key, data, 0, n, ext)
				for range 4 {
					off := rnd.IntN(n + 1)
					k.mustRead(t, key, data, off, rnd.IntN(n-off+1), ext)
				}
			}
		}
	}
}

func TestPartsReadAsOne(t *testing.T) {
	k := newCluster(t, 12)
	var all []byte
	var extents []ashlar.Extent
	for part, n := range []int{5_000_000, 0, 70_000, 4_200_001} {
		data := randomBytes(n, uint64(part))
		ext, err := k.c.WriteStripes(t.Context(), wire.WriteRequest{Key: "k", Part: uint32(part), Bytes: int64(n)}, bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		all, extents = append(all, data...), append(extents, ext)
	}
	k.mustRead(t, "k", all, 0, len(all), extents...)
	k.mustRead(t, "k", all, 4_999_999, 70_003, extents...)
	k.mustRead(t, "k", all, len(all), 0, extents...)
	if _, err := k.read("k", 1, len(all), extents...); !ashlar.Is(err, ashlar.Invalid) {
		t.Fatalf("a range beyond the end: %v", err)
	}
}

// TestAnyToleratedLossReadsRight draws sizes, ranges and up to m bad disks of
// every kind; one disk more must be Unavailable and nothing else.
func TestAnyToleratedLossReadsRight(t *testing.T) {
	for _, code := range []ashlar.Code{{K: 8, M: 4}, {K: 4, M: 2}, {K: 1, M: 2}} {
		k := newCluster(t, code.Pieces(), codes(code, code))
		data := randomBytes(9_000_001, 3)
		ext := k.write(t, "k", data)
		k.settled(t, 3*code.Pieces())
		rapid.Check(t, func(t *rapid.T) {
			bad := rapid.IntRange(0, int(code.M)+1).Draw(t, "bad")
			order := rapid.Permutation(seq(code.Pieces())).Draw(t, "order")
			for i, n := range order {
				f := fault{}
				if i < bad {
					f = rapid.SampledFrom([]fault{{dead: true}, {corrupt: true}}).Draw(t, "fault")
				}
				k.disks[n].set(f)
			}
			off := rapid.IntRange(0, len(data)-1).Draw(t, "off")
			n := rapid.IntRange(1, len(data)-off).Draw(t, "n")
			got, err := k.read("k", off, n, ext)
			switch {
			case err == nil && !bytes.Equal(got, data[off:off+n]):
				t.Fatal("wrong bytes")
			case err != nil && bad <= int(code.M):
				t.Fatal(err)
			case err != nil && !ashlar.Is(err, ashlar.Unavailable):
				t.Fatalf("too few pieces: got %v", err)
			}
		})
		for _, d := range k.disks {
			d.set(fault{})
		}
	}
}

func seq(n int) []int {
	s := make([]int, n)
	for i := range s {
		s[i] = i
	}
	return s
}

func TestMissingPiecesAreUnavailableNotNotFound(t *testing.T) {
	k := newCluster(t, 12)
	data := randomBytes(3_000_000, 1)
	ext := k.write(t, "k", data)
	k.settled(t, 12)
	for _, d := range k.disks[:5] {
		d.mu.Lock()
		clear(d.pieces)
		d.mu.Unlock()
	}
	if _, err := k.read("k", 0, len(data), ext); !ashlar.Is(err, ashlar.Unavailable) {
		t.Fatalf("got %v", err)
	}
}

func TestHungAndSlowDisksDoNotHoldReadsUp(t *testing.T) {
	k := newCluster(t, 12)
	data := randomBytes(4_000_000, 1)
	ext := k.write(t, "k", data)
	k.mustRead(t, "k", data, 0, len(data), ext)
	k.settled(t, 12)
	k.disks[0].set(fault{hang: true})
	k.disks[3].set(fault{delay: 20 * time.Second})
	begin := time.Now()
	for range 4 {
		k.mustRead(t, "k", data, 0, len(data), ext)
	}
	if took := time.Since(begin); took > 10*time.Second { // half of one delay
		t.Fatalf("four reads took %v", took)
	}
	if !k.c.slow.avoid(ashlar.DiskID{1}) {
		t.Error("the hung disk is still asked first")
	}
	small := k.write2(t, "small", randomBytes(1000, 2))
	k.mustRead(t, "small", randomBytes(1000, 2), 0, 1000, small)
	k.c.stop() // the put to the hung disk
}

// write2 writes where one disk of the group hangs: the quorum does not wait for it.
func (k *cluster) write2(t testing.TB, key string, data []byte) ashlar.Extent {
	t.Helper()
	begin := time.Now()
	ext := k.write(t, key, data)
	if took := time.Since(begin); took > 10*time.Second {
		t.Fatalf("the write took %v", took)
	}
	return ext
}

func TestQuorumAcknowledgesAndTheRestIsReported(t *testing.T) {
	k := newCluster(t, 12)
	k.disks[2].set(fault{dead: true})
	k.disks[11].set(fault{full: true})
	data := randomBytes(9_000_000, 1)
	ext := k.write(t, "k", data)
	k.mustRead(t, "k", data, 0, len(data), ext)
	k.close()
	got := map[string]bool{}
	for _, m := range k.missed {
		got[fmt.Sprint(m.Stripe, m.Index)] = true
		if m.Owner.Key != "k" || m.Code != ext.Large || m.StripeBytes == 0 {
			t.Errorf("reported %+v", m)
		}
	}
	for s := range ext.Stripes(ashlar.BucketID{}, "k", 0, ext.Bytes) {
		if !got[fmt.Sprint(s.ID, 2)] || !got[fmt.Sprint(s.ID, 11)] {
			t.Errorf("stripe %v: missing pieces were not reported", s.ID)
		}
	}
	if len(got) != 6 || len(k.missed) != 6 {
		t.Errorf("%d reports of %d pieces", len(k.missed), len(got))
	}
}

func TestHungDiskLosesItsPieceAfterTheGrace(t *testing.T) {
	k := newCluster(t, 12, func(_ *topology.Settings, c *Config) { c.StragglerTimeout = 20 * time.Millisecond })
	k.disks[6].set(fault{hang: true})
	k.write(t, "k", randomBytes(1_000_000, 1))
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		k.mu.Lock()
		n := len(k.missed)
		k.mu.Unlock()
		if n == 1 && k.mem.Write.Used() == 0 {
			return
		}
		if time.Now().After(end) { // the put's own deadline is later
			t.Fatalf("%d reports, %d bytes held", n, k.mem.Write.Used())
		}
	}
}

func TestTooFewDisksFailPromptlyAndLeaveNothing(t *testing.T) {
	for name, c := range map[string]struct {
		fault fault
		kind  ashlar.Kind
	}{"dead": {fault{dead: true}, ashlar.Unavailable}, "full": {fault{full: true}, ashlar.Full}} {
		t.Run(name, func(t *testing.T) {
			k := newCluster(t, 12)
			for _, d := range k.disks[9:] {
				d.set(c.fault)
			}
			_, err := k.c.WriteStripes(t.Context(), wire.WriteRequest{Key: "k", Bytes: 9_000_000}, bytes.NewReader(make([]byte, 9_000_000)))
			if !ashlar.Is(err, c.kind) {
				t.Fatalf("got %v", err)
			}
			for _, d := range k.disks {
				d.set(fault{})
			}
			k.close()
			if n := k.stored(); n > 3*3 || c.kind == ashlar.Full && n != 0 { // dead disks cannot confirm deletes
				t.Errorf("%d pieces left", n)
			}
			if len(k.missed) != 0 {
				t.Error("pieces of a failed upload were reported for repair")
			}
		})
	}
}

func TestDisksThatTheMapCallsDeadAreNotAsked(t *testing.T) {
	k := newCluster(t, 12)
	for _, i := range []int{0, 5} {
		k.disks[i].set(fault{hang: true})
		k.edit(func(m *topology.Map) { m.Disks[i].State = topology.DiskFailed })
	}
	data := randomBytes(1_000_000, 1)
	begin := time.Now()
	ext := k.write(t, "k", data)
	k.mustRead(t, "k", data, 0, len(data), ext)
	k.close()
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
	if len(k.missed) != 2 {
		t.Errorf("%d pieces reported", len(k.missed))
	}
	k.edit(func(m *topology.Map) { m.Hosts[7].State = topology.HostDown })
	r := &countingReader{}
	if _, err := k.c.WriteStripes(t.Context(), wire.WriteRequest{Key: "k", Bytes: 1_000_000}, r); !ashlar.Is(err, ashlar.Unavailable) || r.n != 0 {
		t.Errorf("below the quorum: %v after %d reads", err, r.n)
	}
}

type countingReader struct{ n int }

func (r *countingReader) Read(p []byte) (int, error) { r.n++; return len(p), nil }

func TestBadBodiesStoreNothing(t *testing.T) {
	digest := errors.New("digest does not match")
	for name, c := range map[string]struct {
		bytes int64
		body  io.Reader
		is    func(error) bool
	}{
		"short":        {5_000_000, bytes.NewReader(make([]byte, 4_999_999)), func(err error) bool { return ashlar.Is(err, ashlar.Invalid) }},
		"empty":        {1, bytes.NewReader(nil), func(err error) bool { return ashlar.Is(err, ashlar.Invalid) }},
		"long":         {5_000_000, bytes.NewReader(make([]byte, 5_000_001)), func(err error) bool { return ashlar.Is(err, ashlar.Invalid) }},
		"torn":         {9_000_000, io.MultiReader(bytes.NewReader(make([]byte, 8_500_000)), failing{digest}), func(err error) bool { return err == digest }},
		"bad digest":   {5_000_000, &withLast{make([]byte, 5_000_000), digest}, func(err error) bool { return err == digest }},
		"bad, unknown": {-1, &withLast{make([]byte, 5_000_000), digest}, func(err error) bool { return err == digest }},
		"stuck":        {100, stuck{}, func(err error) bool { return err == io.ErrNoProgress }},
	} {
		t.Run(name, func(t *testing.T) {
			k := newCluster(t, 12)
			_, err := k.c.WriteStripes(t.Context(), wire.WriteRequest{Key: "k", Bytes: c.bytes}, c.body)
			if !c.is(err) {
				t.Errorf("got %v", err)
			}
			k.close()
			if n := k.stored(); n != 0 {
				t.Errorf("%d pieces left", n)
			}
		})
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

type stuck struct{}

func (stuck) Read([]byte) (int, error) { return 0, nil }

// withLast returns its error together with the last bytes, as io.Reader allows.
type withLast struct {
	b   []byte
	err error
}

func (w *withLast) Read(p []byte) (int, error) {
	n := copy(p, w.b)
	if w.b = w.b[n:]; len(w.b) == 0 {
		return n, w.err
	}
	return n, nil
}

func TestStaleMapIsRefetchedOnce(t *testing.T) {
	k := newCluster(t, 13)
	data := randomBytes(1_000_000, 1)
	ext := k.write(t, "k", data)
	k.settled(t, 12)
	k.close()
	// Disk 4's place moves to disk 12, and its piece with it.
	k.disks[12].pieces, k.disks[4].pieces = k.disks[4].pieces, map[wire.PieceID][]byte{}
	k.disks[4].set(fault{stale: true})
	var c *Coordinator
	cfg := k.c.cfg
	old := k.m.Load()
	k.edit(func(m *topology.Map) { m.Groups[0].Disks[4] = 12 })
	asked := 0
	cfg.Maps = func() *topology.Map { // the first look is at the old map
		if asked++; asked == 1 {
			return old
		}
		return k.m.Load()
	}
	c = New(cfg)
	k.c = c
	k.mustRead(t, "k", data, 0, len(data), ext)
	k.edit(func(m *topology.Map) { m.Groups[0].Disks[4] = 12 })
	k.write(t, "k2", data)
	k.close()
	if len(k.disks[12].pieces) != 2 || len(k.missed) != 0 {
		t.Errorf("%d pieces at the new seat, %d missed", len(k.disks[12].pieces), len(k.missed))
	}
}

func TestDeleteNeedsEveryDisk(t *testing.T) {
	k := newCluster(t, 12)
	data := randomBytes(9_000_000, 1)
	ext := k.write(t, "k", data)
	small := k.write(t, "k", data[:1000])
	k.close()
	k.disks[7].set(fault{dead: true})
	if err := k.c.DeleteStripes(t.Context(), ashlar.BucketID{}, "k", []ashlar.Extent{ext, small}); !ashlar.Is(err, ashlar.Unavailable) {
		t.Fatalf("with a dead disk: %v", err)
	}
	k.disks[7].set(fault{})
	for range 2 { // it is safe to repeat
		if err := k.c.DeleteStripes(t.Context(), ashlar.BucketID{}, "k", []ashlar.Extent{ext, small}); err != nil {
			t.Fatal(err)
		}
	}
	if n := k.stored(); n != 0 {
		t.Errorf("%d pieces left", n)
	}
}

// TestManyUploadsShareOneBudget runs more uploads than the budget holds
// stripes, copies from and to the same coordinator among them.
func TestManyUploadsShareOneBudget(t *testing.T) {
	k := newCluster(t, 12, func(_ *topology.Settings, c *Config) {
		c.Memory = NewMemory(buffer.NewPool(), 16*ashlar.MiB) // one stripe is 6 MiB
	})
	data := randomBytes(9_000_000, 1)
	src := k.write(t, "src", data)
	errs := make(chan error, 24)
	for i := range cap(errs) {
		go func() {
			key := fmt.Sprint("k", i)
			var body io.Reader = bytes.NewReader(data)
			if i%2 == 0 {
				r, err := k.gateway().ReadStripes(t.Context(), wire.ReadRequest{Key: "src", Extents: []ashlar.Extent{src}, Length: src.Bytes})
				if err != nil {
					errs <- err
					return
				}
				defer r.Close()
				body = r
			}
			ext, err := k.c.WriteStripes(t.Context(), wire.WriteRequest{Key: key, Bytes: int64(len(data))}, body)
			if err == nil {
				var got []byte
				if got, err = k.read(key, 0, len(data), ext); err == nil && !bytes.Equal(got, data) {
					err = errors.New("wrong bytes")
				}
			}
			errs <- err
		}()
	}
	for range cap(errs) {
		select {
		case err := <-errs:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(30 * time.Second):
			t.Fatal("deadlock")
		}
	}
}

func TestCancelledUploadLeavesNothing(t *testing.T) {
	k := newCluster(t, 12)
	ctx, cancel := context.WithCancel(t.Context())
	body := io.MultiReader(bytes.NewReader(make([]byte, 6_000_000)), readFunc(func([]byte) (int, error) {
		cancel()
		return 0, context.Canceled
	}))
	if _, err := k.c.WriteStripes(ctx, wire.WriteRequest{Key: "k", Bytes: 9_000_000}, body); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	k.close()
	if n := k.stored(); n != 0 {
		t.Errorf("%d pieces left", n)
	}
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

func TestClosedStreamAndCoordinator(t *testing.T) {
	k := newCluster(t, 12)
	data := randomBytes(9_000_000, 1)
	ext := k.write(t, "k", data)
	r, err := k.c.ReadStripes(t.Context(), wire.ReadRequest{Key: "k", Extents: []ashlar.Extent{ext}, Length: ext.Bytes})
	if err != nil {
		t.Fatal(err)
	}
	io.CopyN(io.Discard, r, 100_000)
	r.Close()
	r.Close()
	if _, err := r.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("read after close: %v", err)
	}
	k.close()
	if _, err := k.c.WriteStripes(t.Context(), wire.WriteRequest{Key: "k", Bytes: 1000}, bytes.NewReader(make([]byte, 1000))); !ashlar.Is(err, ashlar.Unavailable) {
		t.Errorf("write after close: %v", err)
	}
}

// TestCloseDoesNotWaitForAStuckBody: an upload whose client went silent after
// a stripe with a missing piece must not keep the host from stopping.
func TestCloseDoesNotWaitForAStuckBody(t *testing.T) {
	k := newCluster(t, 12)
	k.disks[3].set(fault{dead: true})
	stuck, free := make(chan struct{}), make(chan struct{})
	body := io.MultiReader(bytes.NewReader(make([]byte, 4*ashlar.MiB)), readFunc(func([]byte) (int, error) {
		close(stuck)
		<-free
		return 0, errors.New("gone")
	}))
	result := make(chan error)
	go func() {
		_, err := k.c.WriteStripes(context.Background(), wire.WriteRequest{Key: "k", Bytes: 9_000_000}, body)
		result <- err
	}()
	<-stuck
	now, cancel := context.WithCancel(t.Context())
	cancel()
	closed := make(chan struct{})
	go func() { k.c.Close(now); close(closed) }()
	select {
	case <-closed:
	case <-time.After(10 * time.Second):
		t.Error("Close waits for the body")
	}
	close(free)
	if err := <-result; err == nil {
		t.Error("the upload succeeded")
	}
}

func TestWriteToEqualsRead(t *testing.T) {
	k := newCluster(t, 12)
	data := randomBytes(9_000_001, 1)
	ext := k.write(t, "k", data)
	r, err := k.c.ReadStripes(t.Context(), wire.ReadRequest{Key: "k", Extents: []ashlar.Extent{ext}, Off: 1, Length: ext.Bytes - 2})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var out bytes.Buffer
	head := make([]byte, 100)
	io.ReadFull(r, head)
	if n, err := io.Copy(&out, r); err != nil || n != int64(len(data)-102) || !bytes.Equal(out.Bytes(), data[101:len(data)-1]) {
		t.Fatalf("%d bytes, %v", n, err)
	}
}

func BenchmarkRead(b *testing.B) {
	for name, dead := range map[string]int{"healthy": 0, "4 dead": 4} {
		b.Run(name, func(b *testing.B) {
			k := newCluster(b, 12, func(s *topology.Settings, _ *Config) { s.StripeBytes = 16 * ashlar.MiB })
			data := randomBytes(64*ashlar.MiB, 1)
			ext := k.write(b, "k", data)
			for _, d := range k.disks[:dead] {
				d.set(fault{dead: true})
			}
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for cpu := newCPU(b); b.Loop(); cpu.bytes += int64(len(data)) {
				r, err := k.c.ReadStripes(b.Context(), wire.ReadRequest{Key: "k", Extents: []ashlar.Extent{ext}, Length: ext.Bytes})
				if err != nil {
					b.Fatal(err)
				}
				if _, err := r.(io.WriterTo).WriteTo(io.Discard); err != nil {
					b.Fatal(err)
				}
				r.Close()
			}
		})
	}
}
