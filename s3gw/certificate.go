package s3gw

import (
	"crypto/tls"
	"log/slog"
	"os"
	"sync"
	"time"

	"ashlar"
)

// certificateLook is how often handshakes look whether the files have changed.
const certificateLook = 10 * time.Second

// certificate is a certificate and its key in two PEM files. A renewed pair is
// taken without a restart; one that does not load leaves the old one in force.
type certificate struct {
	certFile, keyFile string
	now               func() time.Time
	log               *slog.Logger

	mu struct {
		sync.Mutex
		pair   *tls.Certificate
		stamps [2]time.Time // of the files that pair was read from
		looked time.Time
	}
}

// openCertificate reads the pair; a pair that cannot be used is an error here.
func openCertificate(certFile, keyFile string, now func() time.Time, log *slog.Logger) (*certificate, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile, now: now, log: log}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.looked = now()
	if err := c.loadLocked(); err != nil {
		return nil, ashlar.E("s3gw: certificate", certFile, ashlar.Invalid, err)
	}
	return c, nil
}

// config is the TLS of a listener. ALPN offers HTTP/1.1 alone.
func (c *certificate) config() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}, GetCertificate: c.get}
}

func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.now(); now.Sub(c.mu.looked) >= certificateLook {
		c.mu.looked = now
		if err := c.loadLocked(); err != nil {
			c.log.Error("the certificate stays the old one", "file", c.certFile, "cause", err)
		}
	}
	return c.mu.pair, nil
}

// loadLocked takes the pair if a file is another than last time.
func (c *certificate) loadLocked() error {
	var stamps [2]time.Time
	for i, name := range []string{c.certFile, c.keyFile} {
		info, err := os.Stat(name)
		if err != nil {
			return err
		}
		stamps[i] = info.ModTime()
	}
	if c.mu.pair != nil && stamps == c.mu.stamps {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return err
	}
	if c.mu.pair != nil {
		c.log.Info("a new certificate is in force", "file", c.certFile)
	}
	c.mu.pair, c.mu.stamps = &pair, stamps
	return nil
}
