// Package trust says whom the gateway believes when it is the one that calls: a key
// server, an identity provider, a target of events.
//
// Such a server is reached by TLS and shows a certificate that leads to the roots of
// the system or to those that the operator named. In the clear only this machine is
// trusted.
package trust

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/netip"
	"net/url"
	"os"
)

// TLS returns what a client trusts: the PEM certificates in a file, or the system's
// if caFile is empty.
func TLS(caFile string) (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if caFile == "" {
		return t, nil
	}
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return nil, err
	}
	t.RootCAs = x509.NewCertPool()
	if !t.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate in PEM", caFile)
	}
	return t, nil
}

// Private reports whether what goes to a URL can be read by nobody on the way:
// https, or http to a loopback address.
func Private(u *url.URL) bool {
	return u.Host != "" && (u.Scheme == "https" || u.Scheme == "http" && Local(u.Hostname()))
}

// Local reports whether a host is surely this machine.
func Local(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}
