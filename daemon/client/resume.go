package client

import (
	"context"
	"io"
	"sync"
	"time"

	"ashlar"
	"ashlar/daemon/wire"
)

const (
	// resumesMax bounds the times that a read is opened anew without a byte in
	// between.
	resumesMax  = 4
	resumePause = 50 * time.Millisecond // doubled each time
	// parkAfter is how long nobody reads from a stream before its connection is
	// given up: there are not as many of them as there are clients.
	parkAfter = 2 * time.Second
)

// ReadStripes implements wire.Stripes. A stream that breaks off, because its
// host died or gave the memory to others while nobody read, goes on from another.
func (s *Stripes) ReadStripes(ctx context.Context, req wire.ReadRequest) (io.ReadCloser, error) {
	r := &resuming{s: s, ctx: ctx, req: req}
	if err := r.open(); err != nil {
		return nil, err
	}
	if req.Length > wire.BriefBytesMax { // a short one is read from the socket's buffer
		r.mu.Lock()
		r.parking = time.AfterFunc(parkAfter, r.park)
		r.mu.Unlock()
	}
	return r, nil
}

// resuming is a stream of bytes that outlives its hosts.
type resuming struct {
	s       *Stripes
	ctx     context.Context
	parking *time.Timer // nil where nothing is parked

	mu   sync.Mutex       // held by Read and park
	req  wire.ReadRequest // what is left to read
	body io.ReadCloser    // nil between a failure, or being parked, and the next try
	idle int              // times that it was opened without a byte since
	last time.Time        // when Read returned
}

// open opens what is left.
func (r *resuming) open() error {
	part, off := uint32(0), r.req.Off
	for _, e := range r.req.Extents {
		if part = e.Part; off < e.Bytes {
			break
		}
		off -= e.Bytes
	}
	m, hosts, err := r.s.homes("client: read", r.req.Bucket, r.req.Key, part)
	if err != nil {
		return err
	}
	req := r.req
	req.Epoch = m.Epoch
	return r.s.try(r.ctx, wire.StepOpen, hosts, always, func(host wire.Stripes) (err error) {
		r.body, err = host.ReadStripes(r.ctx, req)
		return err
	})
}

// Read yields the next bytes, from whatever host has them.
func (r *resuming) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.rest()
	for {
		var n int
		err := r.ready()
		if err == nil {
			n, err = r.body.Read(p)
		}
		if n > 0 {
			r.req.Off += uint64(n)
			r.req.Length -= uint64(n)
			r.idle = 0
			return n, nil // an error comes again
		}
		if err == nil || !r.resume(err) {
			return 0, err
		}
	}
}

// rest begins the time in which the consumer is awaited.
func (r *resuming) rest() {
	if r.parking != nil {
		r.last = time.Now()
		r.parking.Reset(parkAfter)
	}
}

// park lets go of the body of a consumer that does not come.
func (r *resuming) park() {
	if !r.mu.TryLock() {
		return // it came
	}
	defer r.mu.Unlock()
	if r.body != nil && r.req.Length > 0 && time.Since(r.last) >= parkAfter {
		r.body.Close()
		r.body = nil
	}
}

// ready makes sure that there is a body to read from.
func (r *resuming) ready() error {
	if r.body != nil {
		return nil
	}
	return r.open()
}

// resume prepares another try and reports whether there is to be one.
func (r *resuming) resume(err error) bool {
	kind := ashlar.KindOf(err)
	if err == io.EOF || r.req.Length == 0 || r.idle == resumesMax || r.ctx.Err() != nil ||
		kind != ashlar.Unavailable && kind != ashlar.Busy && kind != ashlar.Stale {
		return false
	}
	if r.body != nil {
		r.body.Close() // it failed already
		r.body = nil
	}
	pause := resumePause << r.idle
	r.idle++
	select {
	case <-r.ctx.Done():
		return false
	case <-time.After(pause):
		return true
	}
}

// Close ends the stream.
func (r *resuming) Close() error {
	if r.parking != nil {
		r.parking.Stop()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.body == nil {
		return nil
	}
	body := r.body
	r.body, r.req.Length = nil, 0
	return body.Close()
}
