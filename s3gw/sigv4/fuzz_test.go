package sigv4

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"ashlar/s3gw/s3"
)

// message is what a signature is about, before anybody writes it down.
type message struct {
	method, host, key, name, value, header, payload string
}

var messageMethods = []string{"GET", "PUT", "POST", "DELETE", "HEAD"}

// change returns the message with one of its parts replaced.
func (m message) change(part uint8, to string) message {
	switch part % 7 {
	case 0:
		sum := sha256.Sum256([]byte(to))
		m.payload = hex.EncodeToString(sum[:])
	case 1:
		m.key = to
	case 2:
		m.name = to
	case 3:
		m.value = to
	case 4:
		m.header = to
	case 5:
		m.method = messageMethods[len(to)%len(messageMethods)]
	case 6:
		m.host = fmt.Sprintf("h%d.example", len(to))
	}
	return m
}

// url writes the message's target.
func (m message) url() string {
	raw := "http://" + m.host + "/b/" + escape(m.key)
	if m.name != "" {
		raw += "?" + string(s3.AppendEscaped(nil, m.name, false)) + "=" + string(s3.AppendEscaped(nil, m.value, false))
	}
	return raw
}

// sendable reports whether net/http takes the message, and whether it is no other
// mechanism of authentication.
func (m message) sendable() bool {
	return !strings.ContainsFunc(m.header, func(r rune) bool { return r < ' ' || r > '~' }) && !strings.HasPrefix(strings.ToLower(m.name), "x-amz-") &&
		!slices.Contains([]string{"Signature", "AWSAccessKeyId"}, m.name)
}

// FuzzMutations is differential: of two messages that differ in one part, the signature of
// one is good for the other exactly if the SDK gives both the same signature.
func FuzzMutations(f *testing.F) {
	f.Add("a/b c", "prefix", "x y", "v", uint8(1), "a/b  c", false)
	f.Add("a/b", "p", "q", " two  spaces ", uint8(4), "two spaces", true)
	f.Add("..//%2e", "a", "+&=;", "v", uint8(3), " &=;", true)
	f.Add("k", "", "", "v", uint8(2), "acl", false)
	f.Add("ä", "Ü", "%", "v", uint8(0), "other", false)
	v := testVerifier(testTime)
	f.Fuzz(func(t *testing.T, key, name, value, header string, part uint8, to string, presign bool) {
		one := message{"PUT", "h.example", key, name, value, header, unsignedPayload}
		two := one.change(part, to)
		if !one.sendable() || !two.sendable() || presign && one.payload != two.payload {
			return
		}
		sign := func(m message) *http.Request {
			return signed(t, m.method, m.url(), m.payload, map[string]string{"X-Amz-Meta-A": m.header}, presign)
		}
		a, b := sign(one), sign(two)
		if _, err := verify(t, v, a); err != nil {
			t.Fatalf("%+v is refused: %v", one, err)
		}
		signature := func(r *http.Request) string {
			if presign {
				return r.URL.Query().Get("X-Amz-Signature")
			}
			return r.Header.Get("Authorization")
		}
		same := signature(a) == signature(b)
		if presign {
			q := b.URL.RawQuery
			b.URL.RawQuery = strings.Replace(q, signature(b), signature(a), 1)
		} else {
			b.Header.Set("Authorization", signature(a))
		}
		if _, err := verify(t, v, b); (err == nil) != same || err != nil && codeOf(err) != "SignatureDoesNotMatch" {
			t.Fatalf("signed %+v\nsent   %+v\nthe SDK's signatures are the same: %v; ours: %v", one, two, same, err)
		}
	})
}

// inChunks writes data in chunks of the given size, as the kind wants them.
func inChunks(p *Payload, data, trailer string, size int) string {
	var b strings.Builder
	previous := p.seed
	for {
		n := min(len(data), size)
		fmt.Fprintf(&b, "%x", n)
		if p.Signed() {
			sum := sha256.Sum256([]byte(data[:n]))
			mac := p.key.mac([]byte(strings.Join([]string{chunkAlgorithm, p.stamp, p.scope, previous, emptySHA256, hex.EncodeToString(sum[:])}, "\n")))
			previous = hex.EncodeToString(mac[:])
			b.WriteString(";" + chunkSigPrefix + previous)
		}
		b.WriteString("\r\n")
		if n == 0 {
			break
		}
		b.WriteString(data[:n] + "\r\n")
		data = data[n:]
	}
	if p.Trailer() {
		fmt.Fprintf(&b, "x-amz-checksum-crc32:%s\r\n", trailer)
		if p.Signed() {
			sum := sha256.Sum256([]byte("x-amz-checksum-crc32:" + trailer + "\n"))
			mac := p.key.mac([]byte(strings.Join([]string{trailerAlgorithm, p.stamp, p.scope, previous, hex.EncodeToString(sum[:])}, "\n")))
			b.WriteString(trailerSigName + ":" + hex.EncodeToString(mac[:]) + "\r\n")
		}
	}
	b.WriteString("\r\n")
	return b.String()
}

// FuzzFraming frames any data and reads it back in any fragments; with one byte changed,
// signed data is the same data or refused, and unsigned data is as long as declared
// or refused.
func FuzzFraming(f *testing.F) {
	f.Add([]byte("hello, world"), uint8(5), uint8(0), uint16(3), byte('x'))
	f.Add([]byte("hello"), uint8(1), uint8(1), uint16(90), byte('0'))
	f.Add([]byte{}, uint8(1), uint8(2), uint16(0), byte('1'))
	f.Add([]byte("0123456789abcdef"), uint8(16), uint8(2), uint16(18), byte('\n'))
	key := (&keyCache{}).get(keyName{"k", "20130524", "r", serviceS3}, "s")
	f.Fuzz(func(t *testing.T, data []byte, size, kind uint8, place uint16, with byte) {
		p := &Payload{kind: kindChunksSigned + payloadKind(kind%3), key: key, stamp: docStamp, scope: "20130524/r/s3/aws4_request", seed: strings.Repeat("0", 64)}
		body := inChunks(p, string(data), "AAAAAA==", int(size)+1)
		read := func(src io.Reader) (string, map[string]string, error) {
			c := NewChunkReader(src, p, int64(len(data)))
			c.bytesMin = 0
			defer c.Release()
			got, err := io.ReadAll(c)
			return string(got), c.Trailers(), err
		}
		for _, src := range []io.Reader{strings.NewReader(body), iotest.OneByteReader(strings.NewReader(body)), iotest.DataErrReader(strings.NewReader(body))} {
			if got, trailers, err := read(src); err != nil || got != string(data) || p.Trailer() && trailers["x-amz-checksum-crc32"] != "AAAAAA==" {
				t.Fatalf("%q came back as %q with %v: %v", data, got, trailers, err)
			}
		}
		spoiled := []byte(body)
		at := int(place) % len(spoiled)
		spoiled[at] = with
		got, trailers, err := read(strings.NewReader(string(spoiled)))
		switch {
		case err != nil:
			if c := codeOf(err); c != "IncompleteBody" && c != "SignatureDoesNotMatch" && c != "MalformedTrailerError" {
				t.Fatalf("%q: %v", spoiled, err)
			}
		case len(got) != len(data):
			t.Fatalf("%q gave %d bytes of %d", spoiled, len(got), len(data))
		case p.Signed() && (got != string(data) || p.Trailer() && trailers["x-amz-checksum-crc32"] != "AAAAAA=="):
			t.Fatalf("%q gave %q %v", spoiled, got, trailers)
		}
	})
}
