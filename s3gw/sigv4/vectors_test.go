package sigv4

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"ashlar/s3gw/s3"
)

// The requests that AWS documents for Signature Version 4 in S3, with the
// signatures printed there.
const (
	docKey    = "AKIAIOSFODNN7EXAMPLE"
	docSecret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
	docStamp  = "20130524T000000Z"
)

var docTime = time.Date(2013, 5, 24, 0, 0, 0, 0, time.UTC)

type keyring map[string]string

// Lookup gives keys that begin with ASIA a token, "token-of-" and their name.
func (k keyring) Lookup(_ context.Context, key, token string) (Credential, error) {
	secret, ok := k[key]
	want := ""
	if strings.HasPrefix(key, "ASIA") {
		want = "token-of-" + key
	}
	switch {
	case !ok:
		return Credential{}, ErrUnknownKey
	case token == "stale":
		return Credential{}, ErrExpiredToken
	case token != want:
		return Credential{}, ErrInvalidToken
	}
	return Credential{Secret: secret, Account: "account-of-" + key, Holder: "holder-of-" + key}, nil
}

func docVerifier() *Verifier {
	return New(Options{Credentials: keyring{docKey: docSecret}, Region: "us-east-1", Now: func() time.Time { return docTime.Add(5 * time.Minute) }})
}

// request builds what net/http would hand to the gateway.
func request(t testing.TB, method, target, host string, headers map[string]string) (*http.Request, s3.Query) {
	t.Helper()
	r, err := http.NewRequest(method, "http://"+host+target, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = host
	for k, v := range headers {
		r.Header.Set(k, v)
	}
	q, err := s3.ParseQuery(r.URL.RawQuery)
	if err != nil {
		t.Fatal(err)
	}
	return r, q
}

func docAuth(signed, signature string) string {
	return "AWS4-HMAC-SHA256 Credential=" + docKey + "/20130524/us-east-1/s3/aws4_request,SignedHeaders=" + signed + ",Signature=" + signature
}

func codeOf(err error) string {
	var e *s3.Error
	if err == nil {
		return "OK"
	}
	if errors.As(err, &e) {
		return e.Code.String()
	}
	return "not an S3 error: " + err.Error()
}

func TestDocumentedVectors(t *testing.T) {
	const host = "examplebucket.s3.amazonaws.com"
	for _, v := range []struct {
		name, method, target, signed, signature string
		headers                                 map[string]string
	}{
		{"get with range", "GET", "/test.txt", "host;range;x-amz-content-sha256;x-amz-date",
			"f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
			map[string]string{"Range": "bytes=0-9", "X-Amz-Content-Sha256": emptySHA256, "X-Amz-Date": docStamp}},
		{"put", "PUT", "/test$file.text", "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
			"98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
			map[string]string{"Date": "Fri, 24 May 2013 00:00:00 GMT", "X-Amz-Date": docStamp, "X-Amz-Storage-Class": "REDUCED_REDUNDANCY",
				"X-Amz-Content-Sha256": "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072"}},
		{"subresource", "GET", "/?lifecycle", "host;x-amz-content-sha256;x-amz-date",
			"fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
			map[string]string{"X-Amz-Content-Sha256": emptySHA256, "X-Amz-Date": docStamp}},
		{"list", "GET", "/?max-keys=2&prefix=J", "host;x-amz-content-sha256;x-amz-date",
			"34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
			map[string]string{"X-Amz-Content-Sha256": emptySHA256, "X-Amz-Date": docStamp}},
	} {
		t.Run(v.name, func(t *testing.T) {
			r, q := request(t, v.method, v.target, host, v.headers)
			r.Header.Set("Authorization", docAuth(v.signed, v.signature))
			a, err := docVerifier().Verify(r, q)
			if err != nil {
				t.Fatalf("refused: %v", err)
			}
			if a.AccessKey != docKey || a.Account != "account-of-"+docKey || a.Presigned {
				t.Fatalf("auth %+v", a)
			}
		})
	}
}

func TestDocumentedPresigned(t *testing.T) {
	target := "/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request" +
		"&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host" +
		"&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
	r, q := request(t, "GET", target, "examplebucket.s3.amazonaws.com", nil)
	if _, err := docVerifier().Verify(r, q); err != nil {
		t.Fatal(err)
	}
}

// chunked frames data as the documents do, with the given signatures.
func chunked(data string, size int, signatures ...string) string {
	var b strings.Builder
	for _, s := range signatures {
		n := min(size, len(data))
		fmt.Fprintf(&b, "%x;chunk-signature=%s\r\n%s", n, s, data[:n])
		if data = data[n:]; n > 0 {
			b.WriteString("\r\n")
		}
	}
	return b.String()
}

// docChunks verifies the documented streaming request and decodes body.
func docChunks(t *testing.T, trailer bool, body string) (string, map[string]string, error) {
	t.Helper()
	headers := map[string]string{
		"Content-Encoding": "aws-chunked", "X-Amz-Date": docStamp, "X-Amz-Storage-Class": "REDUCED_REDUNDANCY",
		"X-Amz-Decoded-Content-Length": "66560", "X-Amz-Content-Sha256": streamSigned, "Content-Length": "66824",
	}
	signed := "content-encoding;content-length;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;x-amz-storage-class"
	seed := "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"
	if trailer {
		headers["X-Amz-Content-Sha256"], headers["X-Amz-Trailer"] = streamSignedTrailer, "x-amz-checksum-crc32c"
		signed = "content-encoding;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;x-amz-storage-class;x-amz-trailer"
		seed = "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e"
	}
	r, q := request(t, "PUT", "/examplebucket/chunkObject.txt", "s3.amazonaws.com", headers)
	r.Header.Set("Authorization", docAuth(signed, seed))
	a, err := docVerifier().Verify(r, q)
	if err != nil {
		t.Fatal(err)
	}
	c := NewChunkReader(strings.NewReader(body), &a.Payload, 66560)
	defer c.Release()
	data, err := io.ReadAll(c)
	return string(data), c.Trailers(), err
}

var docChunkSignatures = []string{
	"ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
	"0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
	"b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
}

func TestDocumentedChunks(t *testing.T) {
	data := strings.Repeat("a", 66560)
	good := chunked(data, 65536, docChunkSignatures...) + "\r\n"
	if got, _, err := docChunks(t, false, good); err != nil || got != data {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	for _, bad := range []struct{ name, body, code string }{
		{"byte of the second chunk changed", good[:65700] + "b" + good[65701:], "SignatureDoesNotMatch"},
		{"cut within a chunk", good[:70], "IncompleteBody"},
		{"cut between chunks", good[:85+2+65536+2], "IncompleteBody"},
		{"no final chunk", strings.Split(good, "0;chunk-signature="+docChunkSignatures[2])[0], "IncompleteBody"},
		{"no final line", good[:len(good)-2], "IncompleteBody"},
		{"bytes behind the end", good + "x", "IncompleteBody"},
		{"an unannounced trailer", good[:len(good)-2] + "x-amz-checksum-crc32:AAAAAA==\r\n\r\n", "MalformedTrailerError"},
		{"signature of the final chunk wrong", strings.Replace(good, "b6c6ea", "b6c6eb", 1), "SignatureDoesNotMatch"},
		{"no signature", strings.Replace(good, ";chunk-signature="+docChunkSignatures[0], "", 1), "IncompleteBody"},
		{"size is not hexadecimal", "z" + good[1:], "IncompleteBody"},
		{"size overflows", "fffffffffffffffff" + good[5:], "IncompleteBody"},
		{"more than declared", "10401" + good[5:], "IncompleteBody"},
		{"less than declared", chunked("", 1, docChunkSignatures[2]) + "\r\n", "SignatureDoesNotMatch"},
	} {
		if _, _, err := docChunks(t, false, bad.body); codeOf(err) != bad.code {
			t.Errorf("%s: got %v, want %s", bad.name, err, bad.code)
		}
	}
}

func TestDocumentedTrailer(t *testing.T) {
	data := strings.Repeat("a", 66560)
	chunks := chunked(data, 65536,
		"b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2",
		"1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7",
		"2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992")
	const signature = "d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435"
	for _, layout := range []string{
		"x-amz-checksum-crc32c:sOO8/Q==\r\nx-amz-trailer-signature:" + signature + "\r\n\r\n",
		"x-amz-checksum-crc32c:sOO8/Q==\n\r\nx-amz-trailer-signature:" + signature + "\r\n\r\n", // as some clients send it
	} {
		got, trailers, err := docChunks(t, true, chunks+layout)
		if err != nil || got != data || trailers["x-amz-checksum-crc32c"] != "sOO8/Q==" {
			t.Fatalf("%d bytes, %v, %v", len(got), trailers, err)
		}
	}
	for _, bad := range []struct{ name, tail, code string }{
		{"value changed", "x-amz-checksum-crc32c:tOO8/Q==\r\nx-amz-trailer-signature:" + signature + "\r\n\r\n", "SignatureDoesNotMatch"},
		{"no signature", "x-amz-checksum-crc32c:sOO8/Q==\r\n\r\n\r\n", "SignatureDoesNotMatch"},
		{"nothing", "", "IncompleteBody"},
		{"behind the signature", "x-amz-trailer-signature:" + signature + "\r\nx-amz-checksum-crc32c:sOO8/Q==\r\n\r\n", "MalformedTrailerError"},
		{"no colon", "x-amz-checksum-crc32c\r\n\r\n", "MalformedTrailerError"},
		{"endless line", strings.Repeat("x", 1<<20), "IncompleteBody"},
		{"many", strings.Repeat("a:b\r\n", 100), "MalformedTrailerError"},
	} {
		if _, _, err := docChunks(t, true, chunks+bad.tail); codeOf(err) != bad.code {
			t.Errorf("%s: got %v, want %s", bad.name, err, bad.code)
		}
	}
}
