package linear

import (
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Bucket is the bucket that the load works on.
const Bucket = "register"

// Requests that take longer are given up: the answer is then open.
const (
	patienceMin = 2 * time.Second
	patienceMax = 12 * time.Second
	// errorPause keeps a client from spinning while a gateway is away.
	errorPause = 20 * time.Millisecond
)

// Load is a crowd of clients that race for a few keys.
type Load struct {
	Seed     uint64
	Clients  int
	Live     int // keys in use at a time
	Gateways []*S3
	// LargeMax is the size of the largest object; one in LargeEvery is above 128 KiB.
	LargeMax, LargeEvery int

	ring *keyring
	left atomic.Int64

	mu       sync.Mutex
	counts   [kinds]int
	open     [kinds]int
	conflict int
	guarded  int
	refused  int
	strange  []string // answers that no request may get
	listed   []string // keys in listings that nobody wrote
}

// strangeMax bounds what is kept of unexpected answers.
const strangeMax = 20

// Run sends operations until that many were answered or left open, or until stop
// is closed.
func (l *Load) Run(operations int, stop <-chan struct{}) {
	l.ring = newKeyring(l.Live)
	l.left.Store(int64(operations))
	var wg sync.WaitGroup
	for i := range l.Clients {
		c := &racer{Load: l, number: i, rng: rand.New(rand.NewPCG(l.Seed, uint64(1000+i)))}
		wg.Go(func() {
			for l.left.Add(-1) >= 0 {
				select {
				case <-stop:
					return
				default:
					c.step()
				}
			}
		})
	}
	wg.Wait()
}

// racer is a client that sends one request at a time.
type racer struct {
	*Load
	number int
	rng    *rand.Rand
}

// step sends one operation, to whichever gateway.
func (c *racer) step() {
	patience := patienceMin
	if c.rng.IntN(8) == 0 {
		patience = patienceMax
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	g := c.rng.IntN(len(c.Gateways))
	n := c.rng.IntN(100)
	if n < 8 {
		c.list(ctx, g)
		return
	}
	k := c.ring.at(c.rng.IntN(c.Live))
	o := Operation{Client: c.number, Gateway: g}
	var err error
	switch {
	case n < 48:
		o.Kind = Get
		err = c.read(ctx, k, &o)
	case n < 60:
		o.Kind = Head
		err = c.read(ctx, k, &o)
	case n < 90:
		o.Kind = Put
		err = c.write(ctx, k, &o)
	case n < 94:
		o.Kind = Complete
		err = c.write(ctx, k, &o)
	default:
		o.Kind = Delete
		err = c.write(ctx, k, &o)
	}
	c.ended(k, &o, err)
}

// ended adds the operation to the key's history. A read without an answer says
// nothing, nor does a conflict: nothing was done.
func (c *racer) ended(k *Key, o *Operation, err error) {
	if o.Return == 0 {
		o.Return = c.ring.now()
	}
	status := statusOf(err)
	c.mu.Lock()
	c.counts[o.Kind]++
	if o.Guard != Always {
		c.guarded++
	}
	switch {
	case err == nil:
	case status == http.StatusConflict && o.Guard != Always:
		c.conflict++
	case status == http.StatusPreconditionFailed && o.Guard != Always:
		c.refused++
	case status == http.StatusNotFound && o.Guard == IfValue:
		c.refused++
	default:
		c.open[o.Kind]++
		if status != 0 && status < 500 {
			c.strangeLocked(fmt.Sprintf("%v: %v", o, err))
		}
	}
	c.mu.Unlock()
	switch {
	case err == nil:
		k.add(*o)
	case o.Kind.reads() || o.Call == 0:
	case status == http.StatusConflict && o.Guard != Always:
	case status == http.StatusPreconditionFailed && o.Guard != Always:
		o.Outcome = Refused
		k.add(*o)
	case status == http.StatusNotFound && o.Guard == IfValue && isNoSuchKey(err):
		o.Outcome = Missing
		k.add(*o)
	default:
		o.Outcome = Open
		k.add(*o)
	}
	if err != nil && (status == 0 || status >= 500) {
		time.Sleep(errorPause)
	}
}

func isNoSuchKey(err error) bool {
	var r *refusal
	return errors.As(err, &r) && (r.code == "NoSuchKey" || r.code == "")
}

func (l *Load) strangeLocked(what string) {
	if len(l.strange) < strangeMax {
		l.strange = append(l.strange, what)
	}
}

func (c *racer) read(ctx context.Context, k *Key, o *Operation) error {
	var etag string
	var sum [md5.Size]byte
	var found bool
	var err error
	o.Call = c.ring.now()
	if o.Kind == Get {
		etag, sum, found, err = c.Gateways[o.Gateway].get(ctx, Bucket, k.Name)
	} else {
		etag, found, err = c.Gateways[o.Gateway].head(ctx, Bucket, k.Name)
	}
	o.Return = c.ring.now()
	switch {
	case err != nil || !found:
		return err
	case o.Kind == Get:
		o.Value = k.seen(etag, &sum)
	default:
		o.Value = k.seen(etag, nil)
	}
	return nil
}

// write puts, completes or deletes, half of the times under a condition.
func (c *racer) write(ctx context.Context, k *Key, o *Operation) error {
	var guard []string
	etag, v, known := k.guess()
	switch n := c.rng.IntN(4); {
	case n == 0 && o.Kind != Delete:
		o.Guard, guard = IfAbsent, []string{"If-None-Match", "*"}
	case n <= 1 && known:
		o.Guard, o.Guarded, guard = IfValue, v, []string{"If-Match", `"` + etag + `"`}
	}
	g := c.Gateways[o.Gateway]
	if o.Kind == Delete {
		o.Call = c.ring.now()
		return g.delete(ctx, Bucket, k.Name, guard...)
	}
	body := c.body(k.Name)
	if o.Kind == Put {
		o.Value, etag = k.written(body, 0)
		o.Call = c.ring.now()
		err := g.put(ctx, Bucket, k.Name, body, guard...)
		return c.wrote(k, etag, err)
	}
	// Only Complete changes the key: what fails before it is no operation.
	upload, err := g.createUpload(ctx, Bucket, k.Name)
	if err != nil {
		return err
	}
	part, err := g.uploadPart(ctx, Bucket, k.Name, upload, body)
	if err != nil {
		return err
	}
	o.Value, etag = k.written(body, 1)
	o.Call = c.ring.now()
	return c.wrote(k, etag, g.complete(ctx, Bucket, k.Name, upload, part, guard...))
}

// wrote lets conditions guess the new value.
func (c *racer) wrote(k *Key, etag string, err error) error {
	if err == nil {
		k.seen(etag, nil)
	}
	return err
}

// body is never the same twice.
func (c *racer) body(key string) []byte {
	size := c.rng.IntN(1024)
	if c.LargeEvery > 0 && c.rng.IntN(c.LargeEvery) == 0 {
		size = 128<<10 + c.rng.IntN(c.LargeMax)
	}
	b := fmt.Appendf(make([]byte, 0, size+64), "%s client %d %x %x\n", key, c.number, c.rng.Uint64(), c.rng.Uint64())
	for word := c.rng.Uint64() | 1; len(b) < size; word = word*6364136223846793005 + 1442695040888963407 {
		b = append(b, byte(word>>56), byte(word>>48), byte(word>>40), byte(word>>32))
	}
	return b
}

// list reads the keys that are in use in small pages. Every page is a request
// of its own, and a read of every key in its range.
func (c *racer) list(ctx context.Context, g int) {
	from := c.ring.oldest()
	after := keyName(from)
	if from > 0 {
		after = keyName(from - 1)
	} else {
		after = "k"
	}
	query := fmt.Sprintf("list-type=2&max-keys=%d&prefix=k&start-after=%s", 3+c.rng.IntN(60), after)
	for pages := 0; ; pages++ {
		o := Operation{Kind: List, Client: c.number, Gateway: g, Call: c.ring.now()}
		p, err := c.Gateways[g].list(ctx, Bucket, query)
		o.Return = c.ring.now()
		if err == nil {
			after, err = c.joins(o, after, p)
		}
		c.mu.Lock()
		if c.counts[List]++; err != nil {
			c.open[List]++
			if s := statusOf(err); s != 0 && s < 500 {
				c.strangeLocked(fmt.Sprintf("LIST %s: %v", query, err))
			}
		}
		c.mu.Unlock()
		if err != nil {
			time.Sleep(errorPause)
			return
		}
		if !p.IsTruncated || c.left.Add(-1) < 0 {
			return
		}
		query = fmt.Sprintf("list-type=2&max-keys=%d&prefix=k&start-after=%s", 3+c.rng.IntN(60), after)
		if c.rng.IntN(2) == 0 {
			query = "continuation-token=" + escape(p.NextContinuationToken) + fmt.Sprintf("&list-type=2&max-keys=%d&prefix=k", 3+c.rng.IntN(60))
		}
	}
}

// escape writes a token as a signature wants it in a query.
func escape(s string) string {
	return strings.NewReplacer("%", "%25", "+", "%2B", "/", "%2F", "=", "%3D").Replace(s)
}

// joins adds a page to the histories of the keys in its range and returns where
// the next one begins.
func (c *racer) joins(o Operation, after string, p page) (last string, err error) {
	if p.IsTruncated {
		if len(p.Contents) == 0 {
			return after, errors.New("a truncated page without a key")
		}
		last = p.Contents[len(p.Contents)-1].Key
	}
	found := make(map[string]string, len(p.Contents))
	previous := after
	for _, e := range p.Contents {
		if e.Key <= previous {
			c.mu.Lock()
			c.listed = append(c.listed, fmt.Sprintf("%s after %s", e.Key, previous))
			c.mu.Unlock()
		}
		previous = e.Key
		found[e.Key] = strings.Trim(e.ETag, `"`)
	}
	for _, k := range c.ring.keys(after, last) {
		o.Value = Nothing
		if etag, ok := found[k.Name]; ok {
			o.Value = k.seen(etag, nil)
			delete(found, k.Name)
		}
		k.add(o)
	}
	c.mu.Lock()
	c.listed = append(c.listed, slices.Collect(maps.Keys(found))...)
	c.mu.Unlock()
	return last, nil
}

// settle reads every key through one gateway after the other, once everything
// has healed. Each must be answered.
func (l *Load) settle(ctx context.Context) error {
	var wg sync.WaitGroup
	errs := make([]error, l.Clients)
	keys := l.ring.keys("", "")
	var next atomic.Int64
	for i := range l.Clients {
		c := &racer{Load: l, number: i, rng: rand.New(rand.NewPCG(l.Seed, uint64(5000+i)))}
		wg.Go(func() {
			for n := int(next.Add(1)) - 1; n < len(keys) && errs[i] == nil; n = int(next.Add(1)) - 1 {
				o := Operation{Kind: Get, Client: i, Gateway: n % len(l.Gateways)}
				if err := c.read(ctx, keys[n], &o); err != nil {
					errs[i] = fmt.Errorf("everything has healed, but GET %s: %w", keys[n].Name, err)
					return
				}
				c.ended(keys[n], &o, nil)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
