package trust

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"testing"
)

func TestPrivate(t *testing.T) {
	for text, want := range map[string]bool{
		"https://a.example/x": true, "http://127.0.0.1:1": true, "http://[::1]/": true, "http://localhost:80": true,
		"http://a.example": false, "http://10.0.0.1": false, "http://localhost.a.example": false, "http://127.0.0.1.a.example": false,
		"ftp://localhost": false, "https:///x": false, "localhost": false,
	} {
		if u, err := url.Parse(text); err != nil || Private(u) != want {
			t.Errorf("%s: want %v", text, want)
		}
	}
}

func TestTLS(t *testing.T) {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	file := filepath.Join(t.TempDir(), "ca")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	for caFile, want := range map[string]bool{file: true, "": false} {
		trust, err := TLS(caFile)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := (&http.Client{Transport: &http.Transport{TLSClientConfig: trust, DisableKeepAlives: true}}).Get(server.URL)
		if err == nil {
			resp.Body.Close()
		}
		if (err == nil) != want {
			t.Errorf("%q: %v", caFile, err)
		}
	}
	for _, bad := range []string{os.DevNull, "/nowhere"} {
		if _, err := TLS(bad); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}
