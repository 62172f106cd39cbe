package sse

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"
)

func seal(t *testing.T, content []byte, k Key, salt, aad []byte) []byte {
	t.Helper()
	out, err := io.ReadAll(NewSealer(iotest.HalfReader(bytes.NewReader(content)), k, salt, aad))
	if err != nil {
		t.Fatal(err)
	}
	if uint64(len(out)) != SealedBytes(uint64(len(content))) || PlainBytes(uint64(len(out))) != uint64(len(content)) {
		t.Fatalf("%d bytes of content, %d of stream", len(content), len(out))
	}
	return out
}

func open(stream []byte, off, length uint64, k Key, salt, aad []byte) ([]byte, error) {
	span := SpanOf(uint64(len(stream)), off, length)
	if span.Off+span.Length > uint64(len(stream)) {
		return nil, io.ErrUnexpectedEOF
	}
	src := io.NopCloser(bytes.NewReader(stream[span.Off : span.Off+span.Length]))
	return io.ReadAll(NewOpener(src, span, k, salt, aad))
}

func content(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.IntN(256))
	}
	return b
}

func TestRangesOfEveryShape(t *testing.T) {
	k, salt, aad := NewKey(), NewSalt(), []byte("bucket/key")
	for _, n := range []int{1, 15, PackageBytes - 1, PackageBytes, PackageBytes + 1, 3*PackageBytes + 7, 4 * PackageBytes} {
		plain := content(n)
		stream := seal(t, plain, k, salt, aad)
		for range 200 {
			off := rand.IntN(n)
			length := 1 + rand.IntN(n-off)
			got, err := open(stream, uint64(off), uint64(length), k, salt, aad)
			if err != nil || !bytes.Equal(got, plain[off:off+length]) {
				t.Fatalf("%d+%d of %d: %v", off, length, n, err)
			}
		}
	}
	if stream := seal(t, nil, k, salt, aad); len(stream) != 0 {
		t.Fatalf("nothing became %d bytes", len(stream))
	}
}

// Whatever is changed, moved, cut off or opened elsewhere does not verify.
func TestWhatIsNotAsSealed(t *testing.T) {
	k, salt, aad := NewKey(), NewSalt(), []byte("bucket/key")
	const n = 3*PackageBytes - 5
	stream := seal(t, content(n), k, salt, aad)
	swapped := bytes.Clone(stream)
	copy(swapped, stream[fullBytes:2*fullBytes])
	copy(swapped[fullBytes:], stream[:fullBytes])
	flipped := bytes.Clone(stream)
	flipped[fullBytes+3] ^= 1
	for name, c := range map[string]struct {
		stream, salt, aad []byte
		key               Key
		bytes             uint64
	}{
		"a bit":           {flipped, salt, aad, k, n},
		"two packages":    {swapped, salt, aad, k, n},
		"another key":     {stream, salt, aad, NewKey(), n},
		"another salt":    {stream, NewSalt(), aad, k, n},
		"another place":   {stream, salt, []byte("bucket/kez"), k, n},
		"the end cut off": {stream[:2*fullBytes], salt, aad, k, 2 * PackageBytes},
	} {
		if _, err := open(c.stream, 0, c.bytes, c.key, c.salt, c.aad); !errors.Is(err, ErrContent) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A body that ends badly never becomes a stream that ends well.
func TestBadEndOfContent(t *testing.T) {
	bad := errors.New("wrong digest")
	for _, n := range []int{0, 1, PackageBytes, PackageBytes + 1} {
		src := io.MultiReader(bytes.NewReader(content(n)), iotest.ErrReader(bad))
		out, err := io.ReadAll(NewSealer(src, NewKey(), NewSalt(), nil))
		if !errors.Is(err, bad) || uint64(len(out)) >= SealedBytes(uint64(n)) && n > 0 {
			t.Errorf("%d bytes and an error: %d bytes, %v", n, len(out), err)
		}
	}
}

func TestKeys(t *testing.T) {
	with, data, aad := NewKey(), NewKey(), []byte("place")
	sealed := SealKey(with, data, aad)
	if got, err := OpenKey(with, sealed, aad); err != nil || got != data {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"key":    second(OpenKey(NewKey(), sealed, aad)),
		"place":  second(OpenKey(with, sealed, []byte("other"))),
		"length": second(OpenKey(with, sealed[1:], aad)),
	} {
		if !errors.Is(err, ErrKey) {
			t.Errorf("another %s: %v", name, err)
		}
	}
}

func second(_ Key, err error) error { return err }

// The format is this, for ever.
func TestGolden(t *testing.T) {
	var k Key
	for i := range k {
		k[i] = byte(i)
	}
	salt := bytes.Repeat([]byte{7}, SaltBytes)
	stream := seal(t, []byte("content"), k, salt, []byte("aad"))
	if got := hex.EncodeToString(stream); got != goldenStream {
		t.Errorf("stream %s", got)
	}
	if got := hex.EncodeToString(Mask(k, []byte("0123456789abcdef"))); got != goldenMask {
		t.Errorf("mask %s", got)
	}
}

const (
	goldenStream = "1560925dc63c50827f02964da9a04ef351f953fc9eae0e"
	goldenMask   = "00302062688cef002ed5f449d7a8b150"
)
