// Package ec plans, encodes and reconstructs stripes. It is arithmetic over
// byte slices: it knows no disk, no network and no clock.
//
// A stripe's user bytes lie in cells, round-robin over the k data pieces. Every
// row is k cells of 64 KiB; the last row's cells are shortened to what is left,
// so that the pieces of a short stripe are short, and padded with zeros. All
// k+m pieces of a stripe have the same length.
//
//	                piece 0    piece 1   …  piece k-1   piece k … k+m-1
//	              ┌──────────┬──────────┬──┬──────────┬─────────────────┐
//	row 0         │ cell 0   │ cell 1   │  │ cell k-1 │  parity of row  │ 64 KiB
//	row 1         │ cell k   │ cell k+1 │  │ cell 2k-1│                 │ 64 KiB
//	last row      │ short    │ short    │  │ short  00│                 │ a multiple of 64 B
//	              └──────────┴──────────┴──┴──────────┴─────────────────┘
//
// Byte j of the parity depends on byte j of the data pieces alone, so that any
// column range of a lost piece is rebuilt from the same range of k others, and
// coding goes column by column in slices that stay in the second-level cache.
// With k = 1 a piece is the user bytes themselves, without padding: a copy.
//
// The parity is that of klauspost/reedsolomon with its default (systematic
// Vandermonde) matrix over GF(2⁸). Another matrix, another cell or another
// alignment is another format: pieces on disks depend on all three.
package ec

import (
	"fmt"
	"hash/crc32"
	"sync"

	"github.com/klauspost/reedsolomon"

	"ashlar"
)

// Cell is the height of a full row, in bytes, and the largest slice that is
// coded at once: twelve of them fit the second-level cache.
const Cell = 64 * ashlar.KiB

// align is what the height of the last row is rounded up to, in bytes: one
// vector register of the coder.
const align = 64

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Sum continues the CRC-32C of bytes already summed (0 to start) over b.
func Sum(sum uint32, b []byte) uint32 { return crc32.Update(sum, castagnoli, b) }

// Coder encodes and reconstructs for one code. It is safe for concurrent use.
type Coder struct {
	code ashlar.Code
	rs   reedsolomon.Encoder // nil for k = 1 and for m = 0
}

// coders holds the few codes that a process ever uses: making one costs a
// matrix inversion, and its cache of decode matrices is worth keeping.
var coders sync.Map // ashlar.Code → *Coder

// For returns the coder of a code. An impossible code is Invalid.
func For(code ashlar.Code) (*Coder, error) {
	if c, ok := coders.Load(code); ok {
		return c.(*Coder), nil
	}
	if code.K < 1 || code.Pieces() > ashlar.PiecesMax {
		return nil, ashlar.E("ec: coder", code.String(), ashlar.Invalid, nil)
	}
	c := &Coder{code: code}
	if code.K > 1 && code.M > 0 {
		rs, err := reedsolomon.New(int(code.K), int(code.M), reedsolomon.WithMaxGoroutines(1))
		if err != nil {
			return nil, ashlar.E("ec: coder", code.String(), ashlar.Invalid, err)
		}
		c.rs = rs
	}
	got, _ := coders.LoadOrStore(code, c)
	return got.(*Coder), nil
}

// headers recycles the slice headers of one coding slice: they escape through
// the coder's interface, and there are many slices in a stripe.
var headers = sync.Pool{New: func() any { return new([ashlar.PiecesMax][]byte) }}

// Encode computes columns [lo, hi) of the parity from those of the data.
// Pieces holds k data pieces followed by m parity pieces, all at least hi
// bytes long; only the parity's columns are written.
func (c *Coder) Encode(pieces [][]byte, lo, hi int) error {
	if len(pieces) != c.code.Pieces() || lo < 0 || hi < lo {
		return ashlar.E("ec: encode", c.code.String(), ashlar.Invalid,
			fmt.Errorf("%d pieces, columns %d to %d", len(pieces), lo, hi))
	}
	if c.rs == nil {
		for _, p := range pieces[c.code.K:] { // copies
			copy(p[lo:hi], pieces[0][lo:hi])
		}
		return nil
	}
	h := headers.Get().(*[ashlar.PiecesMax][]byte)
	defer func() { clear(h[:]); headers.Put(h) }()
	for ; lo < hi; lo += Cell {
		end := min(hi, lo+Cell)
		for i, p := range pieces {
			h[i] = p[lo:end:end]
		}
		if err := c.rs.Encode(h[:len(pieces)]); err != nil {
			return ashlar.E("ec: encode", c.code.String(), ashlar.Internal, err)
		}
	}
	return nil
}

// Reconstruct computes wanted pieces, or the same column range of them, from at
// least k good ones. Good and want have one entry for each piece of the stripe;
// an entry that is nil is neither known nor wanted. All entries that are not
// nil have the same length. Fewer than k good pieces is Unavailable.
func (c *Coder) Reconstruct(good, want [][]byte) error {
	const op = "ec: reconstruct"
	n := c.code.Pieces()
	if len(good) != n || len(want) != n {
		return ashlar.E(op, c.code.String(), ashlar.Invalid, fmt.Errorf("%d good, %d wanted entries", len(good), len(want)))
	}
	size, known, wanted := -1, 0, 0
	for i := range good {
		for _, b := range [2][]byte{good[i], want[i]} {
			if b != nil && size >= 0 && len(b) != size {
				return ashlar.E(op, c.code.String(), ashlar.Invalid, fmt.Errorf("pieces of %d and %d bytes", size, len(b)))
			}
			if b != nil {
				size = len(b)
			}
		}
		if good[i] != nil {
			known++
		}
		if want[i] != nil {
			wanted++
		}
	}
	if known < int(c.code.K) {
		return ashlar.E(op, c.code.String(), ashlar.Unavailable, fmt.Errorf("%d good pieces of %d needed", known, c.code.K))
	}
	if wanted == 0 || size == 0 {
		return nil
	}
	if c.rs == nil {
		return c.copyPieces(good, want)
	}
	return c.reconstruct(good, want, size)
}

// copyPieces serves k = 1, where every piece is the same, and m = 0, where a
// piece comes only from itself.
func (c *Coder) copyPieces(good, want [][]byte) error {
	for i, w := range want {
		for j := 0; j < len(good) && w != nil; j++ {
			if good[j] != nil && (c.code.K == 1 || i == j) {
				copy(w, good[j])
				w = nil
			}
		}
	}
	return nil
}

func (c *Coder) reconstruct(good, want [][]byte, size int) error {
	n := len(good)
	var required [ashlar.PiecesMax]bool
	for i := range want {
		required[i] = want[i] != nil && good[i] == nil
		if want[i] != nil && good[i] != nil {
			copy(want[i], good[i])
		}
	}
	h := headers.Get().(*[ashlar.PiecesMax][]byte)
	defer func() { clear(h[:]); headers.Put(h) }()
	for lo := 0; lo < size; lo += Cell {
		hi := min(size, lo+Cell)
		for i := range n {
			switch {
			case good[i] != nil:
				h[i] = good[i][lo:hi:hi]
			case required[i]:
				h[i] = want[i][lo:lo:hi] // empty with room: the coder fills it in place
			default:
				h[i] = nil
			}
		}
		if err := c.rs.ReconstructSome(h[:n], required[:n]); err != nil {
			return ashlar.E("ec: reconstruct", c.code.String(), ashlar.Internal, err)
		}
	}
	return nil
}
