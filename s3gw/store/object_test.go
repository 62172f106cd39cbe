package store

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"io"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"ashlar"
	"ashlar/daemon/meta"
	"ashlar/daemon/wire"
)

func TestPutHeadReadDelete(t *testing.T) {
	r := newRig(t)
	attrs := Attributes{ContentType: "text/plain", User: map[string]string{"color": "red", "latin": "\xe4"}, Tags: map[string]string{"k": "v"}}
	b := body([]byte("hello world"))
	b.check = &Checksum{Algorithm: CRC32, Value: []byte{1, 2, 3, 4}}
	put, err := r.PutObject(r.ctx, &PutRequest{Bucket: "b", Key: "a/b", Owner: "me", Attributes: attrs}, b)
	want(t, err, nil)
	sum := md5.Sum([]byte("hello world"))
	if put.ETag != hex.EncodeToString(sum[:]) || put.Bytes != 11 {
		t.Fatalf("put returned %+v", put)
	}
	head, err := r.HeadObject(r.ctx, "b", "a/b", "")
	want(t, err, nil)
	if !reflect.DeepEqual(head, put) || !reflect.DeepEqual(head.Attributes, attrs) || head.Checksum.Algorithm != CRC32 {
		t.Fatalf("head %+v\nput  %+v", head, put)
	}
	if got := r.content(t, &head, 6, 5); got != "world" {
		t.Fatalf("range is %q", got)
	}
	_, err = r.OpenObject(r.ctx, &head, 6, 6)
	if !ashlar.Is(err, ashlar.Invalid) {
		t.Fatalf("range beyond the end: %v", err)
	}
	if got := r.content(t, &head, 11, 0); got != "" {
		t.Fatalf("empty range is %q", got)
	}
	r.put(t, "b", "a", "both are legal")
	r.put(t, "b", "a/b", "newer")
	if got := r.read(t, "b", "a/b"); got != "newer" {
		t.Fatalf("after the overwrite: %q", got)
	}
	if got := r.content(t, &head, 0, 11); got != "hello world" {
		t.Fatalf("a reader of the old content got %q", got)
	}
	r.audit(t)
	want(t, r.unput(r.ctx, "b", "a/b", Conditions{}), nil)
	want(t, r.unput(r.ctx, "b", "a/b", Conditions{}), nil)
	_, err = r.HeadObject(r.ctx, "b", "a/b", "")
	want(t, err, ErrNoSuchKey)
	if got := r.read(t, "b", "a"); got != "both are legal" {
		t.Fatalf("a is %q", got)
	}
	r.audit(t)
}

func TestEmptyObjectHasNoExtents(t *testing.T) {
	r := newRig(t)
	for _, announced := range []int64{0, -1} {
		b := body(nil)
		b.n = announced
		o, err := r.PutObject(r.ctx, &PutRequest{Bucket: "b", Key: "empty"}, b)
		want(t, err, nil)
		if len(o.Extents) != 0 || o.ETag != "d41d8cd98f00b204e9800998ecf8427e" || r.read(t, "b", "empty") != "" {
			t.Fatalf("empty object is %+v", o)
		}
		if !b.eof {
			t.Fatal("the body was not read to its end")
		}
	}
	r.audit(t)
}

func TestBadNames(t *testing.T) {
	r := newRig(t)
	for _, key := range []string{"", "a\x00b", "a\xff", strings.Repeat("k", 1025)} {
		_, err := r.PutObject(r.ctx, &PutRequest{Bucket: "b", Key: key}, body([]byte("x")))
		if !ashlar.Is(err, ashlar.Invalid) {
			t.Errorf("put %.10q: %v", key, err)
		}
		if _, err := r.HeadObject(r.ctx, "b", key, ""); !ashlar.Is(err, ashlar.Invalid) {
			t.Errorf("head %.10q: %v", key, err)
		}
		if err := r.unput(r.ctx, "b", key, Conditions{}); !ashlar.Is(err, ashlar.Invalid) {
			t.Errorf("delete %.10q: %v", key, err)
		}
	}
	r.put(t, "b", strings.Repeat("k", 1024), "long")
	_, err := r.PutObject(r.ctx, &PutRequest{Bucket: "nope", Key: "k"}, body([]byte("x")))
	want(t, err, ErrNoSuchBucket)
	_, err = r.HeadObject(r.ctx, "nope", "k", "")
	want(t, err, ErrNoSuchBucket)
	want(t, r.unput(r.ctx, "nope", "k", Conditions{}), ErrNoSuchBucket)
	_, err = r.ListObjects(r.ctx, ListRequest{Bucket: "nope", Max: 10})
	want(t, err, ErrNoSuchBucket)
	r.audit(t)
}

// A body that fails, early, at its very end or by being too long, leaves
// nothing, and its own error comes back, whatever the stripes made of it.
func TestFailedBodyStoresNothing(t *testing.T) {
	r := newRig(t)
	errDigest := errors.New("the digest differs")
	bodies := map[string]struct {
		body *testBody
		want error
	}{
		"wrong digest": {&testBody{r: strings.NewReader("hello"), n: 5, failure: errDigest}, errDigest},
		"wrong digest, unknown length": {
			&testBody{r: strings.NewReader("hello"), n: -1, failure: errDigest}, errDigest},
		"wrong digest, empty": {&testBody{r: strings.NewReader(""), n: 0, failure: errDigest}, errDigest},
		"cut off":             {&testBody{r: strings.NewReader("hel"), n: 5, failure: io.ErrUnexpectedEOF}, io.ErrUnexpectedEOF},
		"too long":            {&testBody{r: strings.NewReader("hello!"), n: 5}, errBodyLength},
		"not empty":           {&testBody{r: strings.NewReader("hello!"), n: 0}, errBodyLength},
		"beyond the maximum":  {&testBody{r: strings.NewReader(""), n: PutBytesMax + 1}, ErrEntityTooLarge},
	}
	for name, c := range bodies {
		_, err := r.PutObject(r.ctx, &PutRequest{Bucket: "b", Key: "k"}, c.body)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		_, err = r.HeadObject(r.ctx, "b", "k", "")
		want(t, err, ErrNoSuchKey)
	}
	r.background.Wait()
	if n := len(r.stripes.writes()); n != 0 {
		t.Fatalf("%d extents left", n)
	}
}

func TestUnknownLengthIsBounded(t *testing.T) {
	w := &watched{body: body([]byte("0123456789")), max: 9}
	if _, err := io.Copy(io.Discard, w); !errors.Is(err, ErrEntityTooLarge) {
		t.Fatalf("ten bytes of nine: %v", err)
	}
}

func TestConditions(t *testing.T) {
	r := newRig(t)
	etag := r.put(t, "b", "there", "one").ETag
	put := func(key string, c Conditions) error {
		_, err := r.PutObject(r.ctx, &PutRequest{Bucket: "b", Key: key, Conditions: c}, body([]byte("two")))
		return err
	}
	any, same, other := []string{"*"}, []string{"x", etag}, []string{"0123"}
	for _, c := range []struct {
		key  string
		cond Conditions
		want error
	}{
		{"there", Conditions{IfNoneMatch: any}, ErrPreconditionFailed},
		{"there", Conditions{IfNoneMatch: same}, ErrPreconditionFailed},
		{"there", Conditions{IfMatch: other}, ErrPreconditionFailed},
		{"absent", Conditions{IfMatch: any}, ErrNoSuchKey},
		{"absent", Conditions{IfMatch: other}, ErrNoSuchKey},
		{"there", Conditions{IfMatch: same}, nil},
		{"there", Conditions{IfMatch: any}, nil},
		{"there", Conditions{IfNoneMatch: other}, nil},
		{"absent", Conditions{IfNoneMatch: any}, nil},
	} {
		if err := put(c.key, c.cond); !errors.Is(err, c.want) || (c.want == nil && err != nil) {
			t.Errorf("put %s %+v: %v, want %v", c.key, c.cond, err, c.want)
		}
	}
	del := func(key string, c Conditions) error { return r.unput(r.ctx, "b", key, c) }
	want(t, del("gone", Conditions{IfMatch: any}), ErrNoSuchKey)
	want(t, del("gone", Conditions{}), nil)
	want(t, del("there", Conditions{IfMatch: other}), ErrPreconditionFailed)
	want(t, del("there", Conditions{IfMatch: any}), nil)
	_, err := r.HeadObject(r.ctx, "b", "there", "")
	want(t, err, ErrNoSuchKey)
	r.audit(t)
}

// A condition that fails at once is answered before the body is transferred.
func TestConditionIsForeseen(t *testing.T) {
	r := newRig(t)
	r.put(t, "b", "k", "one")
	b := body([]byte("two"))
	_, err := r.PutObject(r.ctx, &PutRequest{Bucket: "b", Key: "k", Conditions: Conditions{IfNoneMatch: []string{"*"}}}, b)
	want(t, err, ErrPreconditionFailed)
	if b.eof {
		t.Fatal("the body was read")
	}
}

// gate is a body that waits at its first byte until all racers are there.
type gate struct {
	*testBody
	wait func()
}

func (g *gate) Read(p []byte) (int, error) { g.wait(); return g.testBody.Read(p) }

func race(n int) (wait func()) {
	var here atomic.Int64
	all := make(chan struct{})
	var once sync.Once
	return func() {
		if here.Add(1) >= int64(n) {
			once.Do(func() { close(all) })
		}
		<-all
	}
}

// meetAtCommit makes the first n commits wait for one another, so that all of
// them were decided on the same row.
func (r *rig) meetAtCommit(n int) {
	wait := race(n)
	r.meta.onCommit(func(_ context.Context, _ ashlar.ShardID, _ *meta.Txn, next func() error) error {
		wait()
		return next()
	})
}

func TestRacersHaveOneWinner(t *testing.T) {
	const racers = 32
	for _, setup := range []string{"if-none-match", "if-match"} {
		r := newRig(t)
		second := r.again() // two gateways
		t.Cleanup(second.Close)
		cond := Conditions{IfNoneMatch: []string{"*"}}
		if setup == "if-match" {
			cond = Conditions{IfMatch: []string{r.put(t, "b", "k", "first").ETag}}
		}
		var won, lost atomic.Int64
		var wg sync.WaitGroup
		wait := race(racers)
		r.meetAtCommit(racers)
		for i := range racers {
			wg.Go(func() {
				st := []*Store{r.Store, second}[i%2]
				var once sync.Once
				g := &gate{body([]byte("content " + numbered(i))), func() { once.Do(wait) }}
				_, err := st.PutObject(r.ctx, &PutRequest{Bucket: "b", Key: "k", Conditions: cond}, g)
				switch {
				case err == nil:
					won.Add(1)
				case errors.Is(err, ErrPreconditionFailed):
					lost.Add(1)
				default:
					t.Errorf("racer: %v", err)
				}
			})
		}
		wg.Wait()
		second.background.Wait()
		if won.Load() != 1 || lost.Load() != racers-1 {
			t.Fatalf("%s: %d won, %d lost", setup, won.Load(), lost.Load())
		}
		r.audit(t)
	}
}

func TestUnconditionalOverwritesAllWin(t *testing.T) {
	r := newRig(t)
	const racers = 32
	var wg sync.WaitGroup
	r.put(t, "b", "k", "old")
	wait := race(racers)
	r.meetAtCommit(racers)
	for i := range racers {
		wg.Go(func() {
			var once sync.Once
			g := &gate{body([]byte(numbered(i))), func() { once.Do(wait) }}
			if _, err := r.PutObject(r.ctx, &PutRequest{Bucket: "b", Key: "k"}, g); err != nil {
				t.Errorf("put: %v", err)
			}
		})
	}
	wg.Wait()
	if len(r.read(t, "b", "k")) != 4 {
		t.Fatal("no writer's content is there")
	}
	r.audit(t)
}

func TestReadFollowsTheMap(t *testing.T) {
	r := newRig(t)
	o := r.put(t, "b", "k", "content")
	stale := 2
	r.stripes.beforeRead = func(wire.ReadRequest) error {
		if stale--; stale >= 0 {
			return ashlar.E("test", "", ashlar.Stale, nil)
		}
		return nil
	}
	if got := r.content(t, &o, 0, o.Bytes); got != "content" {
		t.Fatalf("got %q", got)
	}
	stale = readAttempts
	_, err := r.OpenObject(r.ctx, &o, 0, o.Bytes)
	if !ashlar.Is(err, ashlar.Stale) {
		t.Fatalf("always stale: %v", err)
	}
}

func TestOverlapping(t *testing.T) {
	list := []ashlar.Extent{{Part: 1, Bytes: 10}, {Part: 2, Bytes: 5}, {Part: 3, Bytes: 0}, {Part: 4, Bytes: 7}}
	for _, c := range []struct{ off, n, first, last, at uint64 }{
		{0, 10, 1, 1, 0}, {9, 1, 1, 1, 9}, {9, 2, 1, 2, 9}, {10, 5, 2, 2, 0}, {12, 4, 2, 4, 2}, {15, 7, 4, 4, 0}, {0, 22, 1, 4, 0},
	} {
		got, at := overlapping(list, c.off, c.n)
		if uint64(got[0].Part) != c.first || uint64(got[len(got)-1].Part) != c.last || at != c.at {
			t.Errorf("%d+%d: parts %d to %d at %d", c.off, c.n, got[0].Part, got[len(got)-1].Part, at)
		}
	}
}
