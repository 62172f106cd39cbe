package dev

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// chaosClient owns some keys and writes, deletes and reads them.
type chaosClient struct {
	*chaos
	rng    *rand.Rand
	prefix string
	keys   []*chaosKey
	seq    int
}

type chaosKey struct {
	*judge
	writes map[int]chaosWrite // by seq; those that may be read
}

// chaosWrite is what a write would leave if it happened.
type chaosWrite struct {
	size  int
	parts []int
}

func (c *chaos) newClient(i int) *chaosClient {
	cl := &chaosClient{chaos: c, rng: rand.New(rand.NewPCG(c.seed, uint64(100+i))), prefix: fmt.Sprintf("c%d/", i)}
	c.clients = append(c.clients, cl)
	return cl
}

// newKey makes one more key. Keys with a level more, a space and other letters
// must be as safe.
func (c *chaosClient) newKey() *chaosKey {
	n := len(c.keys)
	key := c.prefix + []string{"plain", "a b", "d/e", "ü"}[n%4] + strconv.Itoa(n)
	c.keys = append(c.keys, &chaosKey{newJudge(key, c.began), map[int]chaosWrite{}})
	return c.keys[n]
}

// anyKey chooses among the keys; the newest are chosen most often, so that
// requests for one key meet the same fault.
func (c *chaosClient) anyKey() *chaosKey {
	n := len(c.keys)
	if n == 0 {
		return c.newKey()
	}
	if c.rng.IntN(2) == 0 {
		return c.keys[n-1-c.rng.IntN(min(n, 6))]
	}
	return c.keys[c.rng.IntN(n)]
}

// step makes one request and judges its answer.
func (c *chaosClient) step() {
	k := c.anyKey()
	g := c.gateways[c.rng.IntN(len(c.gateways))]
	ctx, cancel := context.WithTimeout(context.Background(), requestBound)
	defer cancel()
	begin := time.Now()
	var err error
	switch n := c.rng.IntN(100); {
	case n < 40:
		if n < 13 && len(c.keys) < chaosKeysMax {
			k = c.newKey()
		}
		err = c.put(ctx, g, k)
	case n < 47:
		err = c.upload(ctx, g, k)
	case n < 57:
		err = c.delete(ctx, g, k)
	case n < 60:
		err = c.list(ctx, g, c.prefix, c.keys)
	default:
		err = c.get(ctx, g, k, begin)
	}
	c.ended(ctx, err, begin, k.key)
}

// ended counts a failed request and judges how it failed.
func (c *chaosClient) ended(ctx context.Context, err error, begin time.Time, key string) {
	took := time.Since(begin)
	c.mu.Lock()
	c.worst = max(c.worst, took)
	c.mu.Unlock()
	var b *breach
	switch code := status(err); {
	case err == nil:
		return
	case errors.As(err, &b):
		c.broken(b, key)
	case ctx.Err() != nil:
		c.t.Errorf("%8.3f s  %s: no end after %v: %v", time.Since(c.began).Seconds(), key, took, err)
	case code >= 500:
		c.count("answers " + strconv.Itoa(code))
	case code != 0:
		c.t.Errorf("%8.3f s  %s: unexpected answer: %v", time.Since(c.began).Seconds(), key, err)
	default:
		c.count("broken connections")
	}
	time.Sleep(errorPause)
}

// size is mostly small, sometimes of two stripes.
func (c *chaosClient) size() int {
	switch n := c.rng.IntN(100); {
	case n < 5:
		return 0
	case n < 45:
		return 1 + c.rng.IntN(4<<10)
	case n < 75:
		return 1 + c.rng.IntN(devSmallMax)
	case n < 93:
		return 1 + c.rng.IntN(1<<20)
	case n < 98:
		return 1 + c.rng.IntN(4<<20)
	default:
		return devStripeBytes + c.rng.IntN(1<<20)
	}
}

// written judges the end of a write.
func (c *chaosClient) written(what string, k *chaosKey, seq int, err error) {
	if err != nil {
		k.unanswered(what, seq, time.Now(), err)
		return
	}
	k.acknowledged(what, seq, time.Now())
	c.count("acknowledged " + what)
	maps.DeleteFunc(k.writes, func(s int, _ chaosWrite) bool { return s != seq })
}

func (c *chaosClient) next(k *chaosKey, w chaosWrite) (seq int, b []byte) {
	c.seq++
	k.writes[c.seq] = w
	return c.seq, content(c.seed, k.key, c.seq, w.size)
}

func seqAttributes(seq int) map[string]string { return map[string]string{"seq": strconv.Itoa(seq)} }

func (c *chaosClient) put(ctx context.Context, g *s3.Client, k *chaosKey) error {
	seq, b := c.next(k, chaosWrite{size: c.size()})
	_, err := g.PutObject(ctx, &s3.PutObjectInput{
		Bucket: aws.String(bucketName), Key: &k.key, Body: bytes.NewReader(b), Metadata: seqAttributes(seq),
	})
	c.written("PUT", k, seq, err)
	return err
}

func (c *chaosClient) delete(ctx context.Context, g *s3.Client, k *chaosKey) error {
	_, err := g.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: aws.String(bucketName), Key: &k.key})
	c.written("DELETE", k, absent, err)
	return err
}

// upload writes in parts. Only Complete changes the key.
func (c *chaosClient) upload(ctx context.Context, g *s3.Client, k *chaosKey) error {
	parts := []int{1 + c.rng.IntN(200_000)}
	if c.rng.IntN(6) == 0 {
		parts = []int{5 << 20, 1 + c.rng.IntN(1<<20)}
	}
	size := 0
	for _, n := range parts {
		size += n
	}
	seq, b := c.next(k, chaosWrite{size, parts})
	up, err := g.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{
		Bucket: aws.String(bucketName), Key: &k.key, Metadata: seqAttributes(seq),
	})
	if err != nil {
		return err
	}
	var done []types.CompletedPart
	for i, n := range parts {
		number := aws.Int32(int32(i + 1))
		part, err := g.UploadPart(ctx, &s3.UploadPartInput{
			Bucket: aws.String(bucketName), Key: &k.key, UploadId: up.UploadId, PartNumber: number, Body: bytes.NewReader(b[:n]),
		})
		if err != nil {
			return err
		}
		done, b = append(done, types.CompletedPart{ETag: part.ETag, PartNumber: number}), b[n:]
	}
	_, err = g.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
		Bucket: aws.String(bucketName), Key: &k.key, UploadId: up.UploadId,
		MultipartUpload: &types.CompletedMultipartUpload{Parts: done},
	})
	c.written("Complete", k, seq, err)
	return err
}

// get reads an object and judges it: which write it is, and whether it is that
// write from the first byte to the last.
func (c *chaosClient) get(ctx context.Context, g *s3.Client, k *chaosKey, began time.Time) error {
	out, err := g.GetObject(ctx, &s3.GetObjectInput{Bucket: aws.String(bucketName), Key: &k.key})
	var missing *types.NoSuchKey
	if errors.As(err, &missing) {
		c.count("reads")
		return asError(k.read(absent, began))
	}
	if err != nil {
		return err
	}
	defer out.Body.Close()
	b, err := io.ReadAll(out.Body)
	if err != nil {
		return err
	}
	c.count("reads")
	seq, err := strconv.Atoi(out.Metadata["seq"])
	if err != nil {
		return k.wrong("attributes %v", out.Metadata)
	}
	if b := k.read(seq, began); b != nil {
		return b
	}
	w := k.writes[seq]
	want := content(c.seed, k.key, seq, w.size)
	switch {
	case !bytes.Equal(b, want):
		return k.wrong("write %d: %d bytes of which the first wrong one is %d, want %d bytes", seq, len(b), firstDifference(b, want), w.size)
	case aws.ToString(out.ETag) != etag(want, w.parts):
		return k.wrong("write %d: ETag %s, want %s", seq, aws.ToString(out.ETag), etag(want, w.parts))
	}
	return nil
}

// asError keeps a nil breach from becoming an error that is not nil.
func asError(b *breach) error {
	if b == nil {
		return nil
	}
	return b
}

func (j *judge) wrong(format string, args ...any) *breach {
	b := j.breach(-1)
	b.text = fmt.Sprintf(format, args...) + "\n" + b.text
	return b
}

func firstDifference(a, b []byte) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// list judges a listing of keys whose owner does nothing else meanwhile.
func (c *chaosClient) list(ctx context.Context, g *s3.Client, prefix string, keys []*chaosKey) error {
	found := map[string]types.Object{}
	pages := s3.NewListObjectsV2Paginator(g, &s3.ListObjectsV2Input{
		Bucket: aws.String(bucketName), Prefix: &prefix, MaxKeys: aws.Int32(int32(20 + c.rng.IntN(200))),
	})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return err
		}
		for _, o := range page.Contents {
			if _, twice := found[aws.ToString(o.Key)]; twice {
				return &breach{text: "listed twice: " + aws.ToString(o.Key)}
			}
			found[aws.ToString(o.Key)] = o
		}
	}
	c.count("lists")
	for _, k := range keys {
		o, ok := found[k.key]
		delete(found, k.key)
		if err := c.listed(k, o, ok); err != nil {
			return err
		}
	}
	for key := range found {
		return &breach{text: "listed, but never written: " + key}
	}
	return nil
}

// listed judges one key's place in a listing, which names no write: what is
// listed must be one that is allowed.
func (c *chaosClient) listed(k *chaosKey, o types.Object, ok bool) error {
	if !ok {
		if !k.allows(absent) {
			return k.wrong("not in the listing")
		}
		return nil
	}
	for _, cl := range k.allowed {
		w, written := k.writes[cl.seq]
		if written && int64(w.size) == aws.ToInt64(o.Size) &&
			aws.ToString(o.ETag) == etag(content(c.seed, k.key, cl.seq, w.size), w.parts) {
			return nil
		}
	}
	return k.wrong("listed with %d bytes and ETag %s", aws.ToInt64(o.Size), aws.ToString(o.ETag))
}

func (c *chaosClient) mustGet(g *s3.Client, k *chaosKey) {
	ctx, cancel := context.WithTimeout(context.Background(), requestBound)
	defer cancel()
	err := c.get(ctx, g, k, time.Now())
	var b *breach
	switch {
	case errors.As(err, &b):
		c.broken(b, k.key)
	case err != nil:
		c.broken(k.wrong("the cluster is healthy, but GET says %v", err), k.key)
	}
}
