package segment

import (
	"encoding/binary"
	"hash/maphash"
	"testing"
)

// TestSeen: a key that was noted is never new again, and with 8 bits a key hardly any other is taken for it.
func TestSeen(t *testing.T) {
	const bits = 1 << 20
	s := newSeen(maphash.MakeSeed(), bits*seenBytesPerBit)
	keyOf := func(n uint64) (k Key) {
		binary.LittleEndian.PutUint64(k.Stripe[8:], n)
		return k
	}
	if s.isNew(keyOf(0)) {
		t.Error("new, and not all keys of the index are known")
	}
	s.complete.Store(true)
	taken := 0
	for n := uint64(1); n <= bits/8; n++ {
		if !s.isNew(keyOf(n)) {
			taken++
		}
		if s.isNew(keyOf(n)) {
			t.Fatalf("key %d is new twice", n)
		}
	}
	if share := float64(taken) / (bits / 8); share > 0.02 {
		t.Errorf("%.3f of the new keys were taken for others", share)
	}
}
