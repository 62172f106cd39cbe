package ec

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"ashlar"
)

func randomBytes(n int, seed uint64) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24)})
	r.Read(b)
	return b
}

func drawCode(t *rapid.T) ashlar.Code {
	k := rapid.IntRange(1, 12).Draw(t, "k")
	m := rapid.IntRange(0, 6).Draw(t, "m")
	return ashlar.Code{K: uint8(k), M: uint8(m)}
}

func drawBytes(t *rapid.T, k int) int {
	edges := []int{1, 63, 64, 65, Cell - 1, Cell, Cell + 1, k*Cell - 1, k * Cell, k*Cell + 1, 2*k*Cell + 64*k}
	return rapid.OneOf(rapid.SampledFrom(edges), rapid.IntRange(1, 3*k*Cell)).Draw(t, "bytes")
}

// spread lays user bytes into freshly dirtied pieces and encodes them.
func spread(t testing.TB, code ashlar.Code, user []byte) (Layout, [][]byte) {
	l := NewLayout(code, len(user))
	pieces := make([][]byte, code.Pieces())
	for i := range pieces {
		pieces[i] = bytes.Repeat([]byte{0xEE}, l.PieceBytes())
	}
	for s := range l.Spans(0, len(user)) {
		copy(pieces[s.Piece][s.Off:s.Off+s.Bytes], user[s.At:])
	}
	for s := range l.Spans(len(user), l.Capacity()-len(user)) {
		clear(pieces[s.Piece][s.Off : s.Off+s.Bytes])
	}
	c, err := For(code)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Encode(pieces, 0, l.PieceBytes()); err != nil {
		t.Fatal(err)
	}
	return l, pieces
}

// gather is spread's inverse for a range.
func gather(l Layout, pieces [][]byte, off, n int) []byte {
	var out []byte
	for s := range l.Spans(off, n) {
		out = append(out, pieces[s.Piece][s.Off:s.Off+s.Bytes]...)
	}
	return out
}

func TestLayoutHoldsEveryByteOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		code := drawCode(t)
		n := drawBytes(t, int(code.K))
		l := NewLayout(code, n)
		if got := l.Capacity() - n; got < 0 || (code.K == 1 && got != 0) || got >= align*int(code.K) {
			t.Fatalf("padding of %d bytes", got)
		}
		ends := make([]int, code.K)
		at := 0
		for s := range l.Spans(0, l.Capacity()) {
			if s.At != at || s.Off != ends[s.Piece] || s.Bytes < 1 || s.Bytes > max(Cell, l.last) {
				t.Fatalf("span %+v after %d, piece filled to %d", s, at, ends[s.Piece])
			}
			at += s.Bytes
			ends[s.Piece] += s.Bytes
		}
		for i, e := range ends {
			if e != l.PieceBytes() {
				t.Fatalf("piece %d filled to %d of %d", i, e, l.PieceBytes())
			}
		}
	})
}

func TestRangesCoverTheirSpans(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		code := drawCode(t)
		n := drawBytes(t, int(code.K))
		l := NewLayout(code, n)
		off := rapid.IntRange(0, n-1).Draw(t, "off")
		length := rapid.IntRange(1, n-off).Draw(t, "length")
		ranges, all := l.Ranges(nil, off, length), l.Columns(off, length)
		left := make([]int, len(ranges))
		for i, r := range ranges {
			left[i] = r.Len()
			if r.Hi > 0 && (r.Lo < all.Lo || r.Hi > all.Hi || r.Hi > l.PieceBytes()) {
				t.Fatalf("range %+v outside %+v", r, all)
			}
		}
		for s := range l.Spans(off, length) {
			r := ranges[s.Piece]
			if s.Off < r.Lo || s.Off+s.Bytes > r.Hi {
				t.Fatalf("span %+v outside %+v", s, r)
			}
			left[s.Piece] -= s.Bytes
		}
		for i := range left { // what is read beyond the range: nothing
			if left[i] != 0 {
				t.Fatalf("piece %d: %d bytes too many", i, left[i])
			}
		}
	})
}

func TestAnyLossUpToParityIsRebuilt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		code := drawCode(t)
		user := randomBytes(drawBytes(t, int(code.K)), rapid.Uint64().Draw(t, "seed"))
		l, pieces := spread(nil, code, user)
		lost := rapid.IntRange(0, int(code.M)).Draw(t, "lost")
		order := rapid.Permutation(seq(code.Pieces())).Draw(t, "order")
		lo := rapid.IntRange(0, l.PieceBytes()-1).Draw(t, "lo")
		hi := rapid.IntRange(lo+1, l.PieceBytes()).Draw(t, "hi")
		good, want := make([][]byte, code.Pieces()), make([][]byte, code.Pieces())
		for n, i := range order {
			if n < lost {
				want[i] = make([]byte, hi-lo)
			} else {
				good[i] = pieces[i][lo:hi]
			}
		}
		c, _ := For(code)
		if err := c.Reconstruct(good, want); err != nil {
			t.Fatal(err)
		}
		for i := range want {
			if want[i] != nil && !bytes.Equal(want[i], pieces[i][lo:hi]) {
				t.Fatalf("piece %d rebuilt wrong in columns %d to %d", i, lo, hi)
			}
		}
		if got := gather(l, pieces, 0, len(user)); !bytes.Equal(got, user) {
			t.Fatal("the data pieces were changed")
		}
	})
}

func TestOneLossTooManyIsUnavailable(t *testing.T) {
	for _, code := range []ashlar.Code{{K: 8, M: 4}, {K: 4, M: 2}, {K: 1, M: 2}, {K: 3, M: 0}} {
		_, pieces := spread(t, code, randomBytes(100_000, 1))
		good, want := make([][]byte, code.Pieces()), make([][]byte, code.Pieces())
		copy(good, pieces)
		for i := range int(code.M) + 1 {
			good[i], want[i] = nil, make([]byte, len(pieces[i]))
		}
		c, _ := For(code)
		if err := c.Reconstruct(good, want); !ashlar.Is(err, ashlar.Unavailable) {
			t.Fatalf("%v: got %v", code, err)
		}
	}
}

// The CRC-32C over all pieces of a fixed stripe, as the first release wrote them.
const golden84, golden42, golden12 = 0xad0279ba, 0x88f19299, 0x997a9081

// TestParityIsStable pins the bytes of the code: pieces on disks outlive us.
func TestParityIsStable(t *testing.T) {
	user := make([]byte, 200_000)
	for i := range user {
		user[i] = byte(i*7 + i>>9)
	}
	for _, c := range []struct {
		code ashlar.Code
		want uint32
	}{
		{ashlar.Code{K: 8, M: 4}, golden84}, {ashlar.Code{K: 4, M: 2}, golden42}, {ashlar.Code{K: 1, M: 2}, golden12},
	} {
		_, pieces := spread(t, c.code, user)
		var sum uint32
		for _, p := range pieces {
			sum = Sum(sum, p)
		}
		if sum != c.want {
			t.Errorf("%v: the pieces' sum is %#08x, not %#08x: the format changed", c.code, sum, c.want)
		}
	}
}

func TestImpossibleCodesAreRefused(t *testing.T) {
	for _, code := range []ashlar.Code{{K: 0, M: 2}, {K: 30, M: 3}} {
		if _, err := For(code); !ashlar.Is(err, ashlar.Invalid) {
			t.Errorf("%v: got %v", code, err)
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

func BenchmarkEncode(b *testing.B) {
	for _, code := range []ashlar.Code{{K: 8, M: 4}, {K: 4, M: 2}, {K: 10, M: 4}} {
		b.Run(fmt.Sprint(code), func(b *testing.B) {
			l, pieces := spread(b, code, randomBytes(16*ashlar.MiB, 1))
			c, _ := For(code)
			b.SetBytes(int64(l.Bytes()))
			b.ReportAllocs()
			for b.Loop() {
				c.Encode(pieces, 0, l.PieceBytes())
			}
		})
	}
}

// BenchmarkEncodeHot encodes one row that stays in cache, as the write path does.
func BenchmarkEncodeHot(b *testing.B) {
	code := ashlar.Code{K: 8, M: 4}
	l, pieces := spread(b, code, randomBytes(8*Cell, 1))
	c, _ := For(code)
	b.SetBytes(int64(l.Bytes()))
	for b.Loop() {
		c.Encode(pieces, 0, l.PieceBytes())
	}
}

func BenchmarkReconstruct(b *testing.B) {
	for _, lost := range []int{1, 4} {
		b.Run(fmt.Sprint(lost, "of8+4"), func(b *testing.B) {
			code := ashlar.Code{K: 8, M: 4}
			l, pieces := spread(b, code, randomBytes(16*ashlar.MiB, 1))
			good, want := make([][]byte, 12), make([][]byte, 12)
			copy(good, pieces)
			for i := range lost {
				want[i], good[i] = make([]byte, l.PieceBytes()), nil
			}
			c, _ := For(code)
			b.SetBytes(int64(l.Bytes()))
			b.ReportAllocs()
			for b.Loop() {
				c.Reconstruct(good, want)
			}
		})
	}
}

func BenchmarkSum(b *testing.B) {
	buf := randomBytes(Cell, 1)
	b.SetBytes(Cell)
	for b.Loop() {
		Sum(0, buf)
	}
}
