package dev

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
)

// TestTLS asks the gateway of both forms by TLS, trusting the cluster's own
// certificate alone.
func TestTLS(t *testing.T) {
	one, many := testConfig(t), testConfig(t)
	one.TLS, many.TLS = "127.0.0.1:0", "127.0.0.1:0"
	for _, c := range []interface {
		SecureS3() string
		Config() Config
	}{startOne(t, one), startMany(t, many)} {
		cfg := c.Config()
		cert, _, err := cfg.certificate()
		if err != nil {
			t.Fatal(err)
		}
		ca, err := os.ReadFile(cert)
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(ca) {
			t.Fatal("no certificate in", cert)
		}
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
		resp, err := client.Get(c.SecureS3())
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		client.CloseIdleConnections()
		if err != nil || resp.StatusCode != http.StatusForbidden || !strings.Contains(string(body), "AccessDenied") {
			t.Errorf("%s: %s %q %v", c.SecureS3(), resp.Status, body, err)
		}
	}
}
