package s3gw

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// pemPair writes a certificate of 127.0.0.1 that signs itself.
func pemPair(t *testing.T, cert, key string, serial int64) {
	t.Helper()
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, priv.Public(), priv)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{key: {Type: "PRIVATE KEY", Bytes: secret}, cert: {Type: "CERTIFICATE", Bytes: der}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestCertificateRenewed proves that a renewed pair is taken, and that one that
// does not load leaves the old one in force.
func TestCertificateRenewed(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "crt"), filepath.Join(dir, "key")
	pemPair(t, cert, key, 1)
	now := time.Now()
	c, err := openCertificate(cert, key, func() time.Time { return now }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	serial := func() int64 {
		t.Helper()
		pair, err := c.get(nil)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(pair.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		return leaf.SerialNumber.Int64()
	}
	touch := func() { // the clock of the file system may be coarse
		now = now.Add(certificateLook)
		for _, name := range []string{cert, key} {
			if err := os.Chtimes(name, now, now); err != nil {
				t.Fatal(err)
			}
		}
	}
	pemPair(t, cert, key, 2)
	if got := serial(); got != 1 {
		t.Errorf("looked at once: %d", got)
	}
	touch()
	if got := serial(); got != 2 {
		t.Errorf("the renewed one is not taken: %d", got)
	}
	if err := os.WriteFile(key, []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	touch()
	if got := serial(); got != 2 {
		t.Errorf("a broken pair: %d", got)
	}
	pemPair(t, cert, key, 3)
	touch()
	if got := serial(); got != 3 {
		t.Errorf("after the repair: %d", got)
	}
}

// TestDoors serves in the clear and by TLS, HTTP/1.1 only, and never with an old TLS.
func TestDoors(t *testing.T) {
	dir := t.TempDir()
	cfg := Config{Listen: "127.0.0.1:0", TLSListen: "127.0.0.1:0", TLSCertFile: filepath.Join(dir, "crt"), TLSKeyFile: filepath.Join(dir, "key")}
	pemPair(t, cfg.TLSCertFile, cfg.TLSKeyFile, 1)
	doors, err := cfg.open(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s := New(Options{Backend: newMemory(), Credentials: keyring{testKey: testSecret}})
	done := make(chan error, 1)
	go func() { done <- s.Serve(t.Context(), doors...) }()
	t.Cleanup(func() {
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	if !accepts(doors) {
		t.Error("the watchdog sees no listener")
	}
	ca, err := os.ReadFile(cfg.TLSCertFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	for _, url := range []string{"http://" + doors[0].Addr().String(), "https://" + doors[1].Addr().String()} {
		client := &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: roots}}}
		resp, err := client.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		client.CloseIdleConnections()
		if resp.StatusCode != 403 || resp.ProtoMajor != 1 || !strings.Contains(string(body), "AccessDenied") {
			t.Errorf("%s: %s %s %s", url, resp.Proto, resp.Status, body)
		}
	}
	conn, err := tls.Dial("tcp", doors[1].Addr().String(), &tls.Config{RootCAs: roots, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10})
	if err == nil {
		conn.Close()
		t.Error("TLS 1.1 is accepted")
	}
}

func TestDoorsRefused(t *testing.T) {
	dir := t.TempDir()
	crt, key := filepath.Join(dir, "crt"), filepath.Join(dir, "key")
	pemPair(t, crt, key, 1)
	for want, cfg := range map[string]Config{
		"set listen, tls-listen, or both": {},
		"go together":                     {TLSListen: "127.0.0.1:0"},
		"tls-key-file go together":        {Listen: "127.0.0.1:0", TLSCertFile: crt},
		"choose another address":          {Listen: "127.0.0.1:0", TLSListen: "256.0.0.1:0", TLSCertFile: crt, TLSKeyFile: key},
		"no such file":                    {Listen: "127.0.0.1:0", TLSListen: "127.0.0.1:0", TLSCertFile: crt + "x", TLSKeyFile: key},
		"PEM":                             {TLSListen: "127.0.0.1:0", TLSCertFile: key, TLSKeyFile: crt},
	} {
		if doors, err := cfg.open(slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", cfg, err, want)
			closeDoors(doors)
		}
	}
}
