package s3gw

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"ashlar"
)

// Door is a listener of a gateway, in the clear unless TLS is set.
type Door struct {
	net.Listener
	TLS *tls.Config
}

// Secure returns a door for ln with the certificate of two PEM files, which are
// read again when they change.
func Secure(ln net.Listener, certFile, keyFile string, log *slog.Logger) (Door, error) {
	cert, err := openCertificate(certFile, keyFile, time.Now, log)
	if err != nil {
		return Door{}, err
	}
	return Door{ln, cert.config()}, nil
}

// open opens the listeners; none stays open after an error.
func (c *Config) open(log *slog.Logger) (doors []Door, err error) {
	const op = "s3gw: listen"
	defer func() {
		if err != nil {
			closeDoors(doors)
		}
	}()
	if c.Listen == "" && c.TLSListen == "" {
		return nil, ashlar.E(op, "", ashlar.Invalid, errors.New("set listen, tls-listen, or both"))
	}
	if (c.TLSListen == "") != (c.TLSCertFile == "") || (c.TLSListen == "") != (c.TLSKeyFile == "") {
		return nil, ashlar.E(op, "tls-listen", ashlar.Invalid, errors.New("tls-listen, tls-cert-file and tls-key-file go together"))
	}
	for _, addr := range []string{c.Listen, c.TLSListen} {
		if addr == "" {
			continue
		}
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			return doors, ashlar.E(op, addr, ashlar.Unavailable, fmt.Errorf("%w: choose another address", err))
		}
		doors = append(doors, Door{Listener: ln})
	}
	if c.TLSListen != "" {
		last := &doors[len(doors)-1]
		secure, err := Secure(last.Listener, c.TLSCertFile, c.TLSKeyFile, log)
		if err != nil {
			return doors, err
		}
		*last = secure
	}
	return doors, nil
}

func closeDoors(doors []Door) {
	for _, d := range doors {
		d.Close()
	}
}

// accepts reports whether a connection to each of our listeners stands: that is
// what the watchdog watches.
func accepts(doors []Door) bool {
	for _, d := range doors {
		conn, err := net.DialTimeout(d.Addr().Network(), d.Addr().String(), acceptTimeout)
		if err != nil {
			return false
		}
		conn.Close()
	}
	return true
}

const acceptTimeout = 2 * time.Second
