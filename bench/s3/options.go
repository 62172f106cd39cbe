// Package s3 loads an S3 endpoint with PUTs or GETs and measures what comes
// back. It is the library behind `ashlar bench s3`.
//
// A run makes its bucket (or uses one that exists), fills it where the workload
// reads, warms up, measures one or more rounds, checks bytes, and removes what
// it stored, also when its context is cancelled. Each of the concurrent workers
// owns one connection and waits for each answer before it sends the next
// request, so that "64 in flight" means exactly that.
//
// The generator must cost less than the server that it measures, or the client
// hides the result. It therefore speaks HTTP/1.1 on the socket itself, signs
// with a signer of its own that keeps its keyed hashes, generates content at
// memory speed and checks it with one pass of a fast hash. What it speaks is
// the small, strict part of the protocol that a benchmark needs: path-style
// addresses, Content-Length bodies, no redirects, no retries while measuring.
//
// The content of an object is a function of the seed and the key, incompressible
// and different in every object, so that nothing on the way can cheat by
// compressing or by sharing.
package s3

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"ashlar"
)

// The operations that a run can measure.
const (
	Put = "put"
	Get = "get"
)

// Bounds of a run.
const (
	ConcurrentMax = 4096
	ObjectMax     = 5 * ashlar.GiB // the largest single PUT of S3
	errorsMax     = 1000           // a run with more has nothing to measure
	setBytesMax   = 1 * ashlar.GiB // default size of the set that is read
	setObjectsMax = 2000
)

// Options describes one run. Endpoints, AccessKey and SecretKey must be given;
// the zero value of every other field has a default.
type Options struct {
	Operation string // Put or Get
	// Endpoints are "http://host:port" or "https://…"; workers are spread over them.
	Endpoints            []string
	AccessKey, SecretKey string
	Region               string // default us-east-1
	// TLS is used for https endpoints; nil means the system's roots.
	TLS *tls.Config

	// Bucket is made and removed by the run if it does not exist; empty means a
	// new one. In a bucket that exists only the objects of the run are removed.
	Bucket string
	// Prefix is put before the names of all objects of the run.
	Prefix string // default ashlar-bench/
	// Bytes is the size of every object.
	Bytes int64
	// Objects is the size of the set that a Get run reads; by default as many as
	// make 1 GiB, at most 2,000 and at least two for each worker.
	Objects    int
	Concurrent int // workers; default 16

	// A round ends after Duration, or after Count operations if that is not zero.
	Duration time.Duration // default 10 s
	Count    int
	Warmup   time.Duration // not measured; zero means none
	Repeats  int           // rounds; default 1

	// SignedPayload signs the SHA-256 of every body instead of UNSIGNED-PAYLOAD.
	SignedPayload bool
	// Verify checks every byte of every answer of a Get run, and after a Put run
	// reads a sample of the objects back.
	Verify bool
	Seed   uint64
	// Timeout bounds the wait for the next bytes of one request; default 60 s.
	Timeout time.Duration
	// CleanupTimeout bounds the removal of what was stored; default 10 min.
	CleanupTimeout time.Duration

	// ServerPIDs are the processes whose CPU time and memory is reported.
	ServerPIDs []int
	// Label is stored in the report.
	Label string
	// Progress is told what the run does now, in a few words; nil is allowed.
	Progress func(string)
}

// withDefaults returns a checked copy in which every field is set.
func (o Options) withDefaults() (Options, error) {
	setDefault(&o.Region, "us-east-1")
	setDefault(&o.Prefix, "ashlar-bench/")
	setDefault(&o.Concurrent, 16)
	setDefault(&o.Repeats, 1)
	setDefault(&o.Timeout, 60*time.Second)
	setDefault(&o.CleanupTimeout, 10*time.Minute)
	if o.Count == 0 {
		setDefault(&o.Duration, 10*time.Second)
	} else {
		o.Duration = 0
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	if o.Operation == Get && o.Objects == 0 {
		fit := int(min(setBytesMax/max(o.Bytes, 1), setObjectsMax))
		o.Objects = max(fit, 2*o.Concurrent)
	}
	return o, o.check()
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func (o *Options) check() error {
	switch {
	case o.Operation != Put && o.Operation != Get:
		return fmt.Errorf("operation %q: want %s or %s", o.Operation, Put, Get)
	case len(o.Endpoints) == 0:
		return errors.New("no endpoint given")
	case o.AccessKey == "" || o.SecretKey == "":
		return errors.New("no access key and secret key given")
	case o.Bytes < 0 || o.Bytes > ObjectMax:
		return fmt.Errorf("size %d: want 0 to 5 GiB", o.Bytes)
	case o.Concurrent < 1 || o.Concurrent > ConcurrentMax:
		return fmt.Errorf("%d workers: want 1 to %d", o.Concurrent, ConcurrentMax)
	case o.Count < 0 || o.Duration < 0 || o.Warmup < 0 || o.Repeats < 1 || o.Objects < 0:
		return errors.New("count, duration, warm-up, repeats and objects must not be negative")
	}
	return nil
}

// endpoint is where a connection goes.
type endpoint struct {
	address string // host:port to dial
	host    string // for the Host header
	tls     *tls.Config
}

func parseEndpoint(text string, config *tls.Config) (endpoint, error) {
	u, err := url.Parse(text)
	if err != nil {
		return endpoint{}, fmt.Errorf("endpoint %q: %w", text, err)
	}
	port := map[string]string{"http": "80", "https": "443"}[u.Scheme]
	if port == "" || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" {
		return endpoint{}, fmt.Errorf("endpoint %q: want http://host:port or https://host:port", text)
	}
	e := endpoint{address: u.Host, host: u.Host}
	if u.Port() == "" {
		e.address = net.JoinHostPort(u.Hostname(), port)
	}
	if u.Scheme == "https" {
		e.tls = &tls.Config{MinVersion: tls.VersionTLS12}
		if config != nil {
			e.tls = config.Clone()
		}
		setDefault(&e.tls.ServerName, u.Hostname())
	}
	return e, nil
}
