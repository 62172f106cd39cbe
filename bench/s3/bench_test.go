package s3

import (
	"testing"
	"time"
)

func BenchmarkContent(b *testing.B) {
	buf := make([]byte, ioBytes)
	c := contentOf(1, "key")
	b.SetBytes(ioBytes)
	for b.Loop() {
		c.fill(buf, 0)
	}
}

func BenchmarkHash(b *testing.B) {
	buf := make([]byte, ioBytes)
	var c conn
	b.SetBytes(ioBytes)
	for b.Loop() {
		c.hash.Write(buf)
	}
}

func BenchmarkSign(b *testing.B) {
	s := newSigner(testAccess, testSecret, testRegion)
	now := time.Now()
	var out []byte
	b.ReportAllocs()
	for b.Loop() {
		out = s.sign(out[:0], now, "PUT", "/bucket/ashlar-bench/0123456789ab/put/0001/000000123", "", "127.0.0.1:9000", unsignedPayload, "")
	}
}
