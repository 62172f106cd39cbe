package dev

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"ashlar"
	"ashlar/daemon/client"
	"ashlar/daemon/meta"
	"ashlar/daemon/wire"
	placeclient "ashlar/placement/client"
	"ashlar/s3gw/store/row"
	"ashlar/tools/dev/devtest"
)

// requestBound is how long any request may take, whatever is broken: the sum
// of the deadlines that a gateway sets (body, commit) and a margin for a busy
// machine.
const requestBound = 40 * time.Second

// missingAfter replaces rollcall.DefaultSettle: it covers stragglers (5 s), not
// the worst piece. Asking too early costs work, nothing else.
const missingAfter = 6 * time.Second

func TestMain(m *testing.M) { os.Exit(devtest.Main(m)) }

// testConfig is a small cluster on free ports in the test's directory.
func testConfig(t testing.TB) Config {
	cfg := Defaults()
	cfg.Dir = filepath.Join(t.TempDir(), "cluster")
	cfg.S3, cfg.Admin = "127.0.0.1:0", "127.0.0.1:0"
	cfg.DiskBytes = ashlar.GiB
	cfg.MissingAfter = missingAfter
	cfg.AccessKey, cfg.SecretKey = "tester", "a secret of the tests"
	return cfg
}

// startOne starts a cluster in this process.
func startOne(t testing.TB, cfg Config) *Cluster {
	t.Helper()
	c, err := Start(t.Context(), cfg, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// startMany starts a cluster of processes. If the test fails, the ends of
// their logs are printed.
func startMany(t testing.TB, cfg Config) *Processes {
	t.Helper()
	p, err := StartProcesses(t.Context(), cfg, Options{Program: devtest.Program(t)})
	if err != nil {
		devtest.PrintLogs(t, cfg.Dir)
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Close()
		if t.Failed() {
			devtest.PrintLogs(t, cfg.Dir)
		}
	})
	return p
}

// bucketName is the one bucket of most tests.
const bucketName = "stones"

// s3Client is the AWS SDK on one gateway: it never tries again, and does not
// verify checksums, so that wrong bytes reach the test.
func s3Client(t testing.TB, url string, cfg Config) *s3.Client {
	tr := &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true, ExpectContinueTimeout: time.Second}
	t.Cleanup(tr.CloseIdleConnections)
	return s3.New(s3.Options{
		BaseEndpoint: aws.String(url), Region: "us-east-1", UsePathStyle: true,
		Credentials:      credentials.NewStaticCredentialsProvider(cfg.AccessKey, cfg.SecretKey, ""),
		HTTPClient:       &http.Client{Transport: tr},
		RetryMaxAttempts: 1, ResponseChecksumValidation: aws.ResponseChecksumValidationWhenRequired,
	})
}

// status returns the HTTP status of a failed request, 0 if none was answered.
func status(err error) int {
	var r *awshttp.ResponseError
	if errors.As(err, &r) {
		return r.HTTPStatusCode()
	}
	return 0
}

// bounded is a context for one request, and the check that it ended in time.
func bounded(t testing.TB, bound time.Duration, what string) (context.Context, func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	return ctx, func() {
		t.Helper()
		if ctx.Err() != nil {
			t.Errorf("%s: no end after %v", what, bound)
		}
		cancel()
	}
}

// content is what an object holds: a function of the seed, the key and the
// number of the write.
func content(seed uint64, key string, seq, size int) []byte {
	b := make([]byte, size)
	rand.NewChaCha8(sha256.Sum256(fmt.Appendf(nil, "%d/%s/%d", seed, key, seq))).Read(b)
	return b
}

// etag is the ETag that S3 gives to content uploaded in parts, or in one piece
// for no parts.
func etag(b []byte, parts []int) string {
	if len(parts) == 0 {
		sum := md5.Sum(b)
		return fmt.Sprintf(`"%x"`, sum)
	}
	all := md5.New()
	for _, n := range parts {
		sum := md5.Sum(b[:n])
		all.Write(sum[:])
		b = b[n:]
	}
	return fmt.Sprintf(`"%s-%d"`, hex.EncodeToString(all.Sum(nil)), len(parts))
}

// makeBucket makes the bucket, however long the cluster takes to be ready.
func makeBucket(t testing.TB, c *s3.Client) {
	t.Helper()
	devtest.Eventually(t, time.Minute, func() error {
		_, err := c.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String(bucketName)})
		return err
	})
}

// object is what a test put and expects back.
type object struct {
	key string
	seq int
	b   []byte
}

// samples are objects of all kinds of size: empty, one byte, copies on both
// sides of the border to erasure coding, one stripe, two stripes.
func samples(seed uint64, prefix string) []object {
	var all []object
	for i, size := range []int{0, 1, 4097, devSmallMax, devSmallMax + 1, 777_777, 3 << 20, devStripeBytes, devStripeBytes + 123_456} {
		key := fmt.Sprintf("%s/%d", prefix, i)
		all = append(all, object{key, 1, content(seed, key, 1, size)})
	}
	return all
}

func put(ctx context.Context, c *s3.Client, o object) error {
	_, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: aws.String(bucketName), Key: &o.key, Body: bytes.NewReader(o.b)})
	return err
}

func putAll(t testing.TB, c *s3.Client, objects []object) {
	t.Helper()
	for _, o := range objects {
		ctx, done := bounded(t, requestBound, "PUT "+o.key)
		err := put(ctx, c, o)
		done()
		if err != nil {
			t.Fatalf("PUT %s of %d bytes: %v", o.key, len(o.b), err)
		}
	}
}

// get reads an object whole.
func get(ctx context.Context, c *s3.Client, key, byteRange string) ([]byte, error) {
	in := &s3.GetObjectInput{Bucket: aws.String(bucketName), Key: &key}
	if byteRange != "" {
		in.Range = &byteRange
	}
	out, err := c.GetObject(ctx, in)
	if err != nil {
		return nil, err
	}
	defer out.Body.Close()
	return io.ReadAll(out.Body)
}

// checkAll reads every object whole and in ranges.
func checkAll(t testing.TB, c *s3.Client, objects []object, when string) {
	t.Helper()
	for _, o := range objects {
		checkOne(t, c, o, when)
	}
}

func checkOne(t testing.TB, c *s3.Client, o object, when string) {
	t.Helper()
	ranges := []struct{ off, end int }{{0, len(o.b)}} // the first is asked without a Range
	if n := len(o.b); n > 2 {
		ranges = append(ranges, struct{ off, end int }{n / 3, n/3 + 1}, struct{ off, end int }{n / 2, n},
			struct{ off, end int }{n - 1, n}, struct{ off, end int }{max(0, n/2-70_000), min(n, n/2+70_000)})
	}
	if n := len(o.b); n > devStripeBytes {
		ranges = append(ranges, struct{ off, end int }{devStripeBytes - 5, devStripeBytes + 5})
	}
	for i, r := range ranges {
		spec := ""
		if i > 0 {
			spec = fmt.Sprintf("bytes=%d-%d", r.off, r.end-1)
		}
		ctx, done := bounded(t, requestBound, "GET "+o.key)
		b, err := get(ctx, c, o.key, spec)
		done()
		if err != nil {
			t.Errorf("%s: GET %s %s of %d bytes: %v", when, o.key, spec, len(o.b), err)
		} else if !bytes.Equal(b, o.b[r.off:r.end]) {
			t.Errorf("%s: GET %s %s: %d wrong bytes", when, o.key, spec, len(b))
		}
	}
}

// inspector looks behind the gateway: which disk holds which piece.
type inspector struct {
	place    *placeclient.Client
	registry *client.Hosts
	meta     *client.Meta
}

func newInspector(t testing.TB, place *placeclient.Client) *inspector {
	registry := client.NewHosts(place.Map)
	t.Cleanup(registry.Close)
	return &inspector{place, registry, client.NewMeta(place.Map, registry.Shards)}
}

// inspect looks into a cluster of this process.
func (c *Cluster) inspect() *inspector {
	return &inspector{c.place, c.registry, client.NewMeta(c.place.Map, c.registry.Shards)}
}

// stripeAt is one stripe of an object and where its pieces are.
type stripeAt struct {
	ashlar.Stripe
	group ashlar.GroupID
	disks []string // by piece
	has   []string // by piece: yes, no, or why it is not known
}

func (s stripeAt) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "stripe %v at %d, %d bytes, %v, group %d:", s.ID, s.Offset, s.Bytes, s.Code, s.group)
	for i := range s.disks {
		fmt.Fprintf(&b, " %s=%s", s.disks[i], s.has[i])
	}
	return b.String()
}

// locate finds the stripes of the current version of a key and asks every disk
// for its piece. It returns an error of kind NotFound if there is no object.
func (in *inspector) locate(ctx context.Context, key string) ([]stripeAt, error) {
	bucket, extents, err := in.extents(ctx, key)
	if err != nil {
		return nil, err
	}
	var all []stripeAt
	for _, e := range extents {
		for s := range e.Stripes(bucket, key, 0, e.Bytes) {
			all = append(all, in.ask(ctx, s))
		}
	}
	return all, nil
}

func (in *inspector) extents(ctx context.Context, key string) (ashlar.BucketID, []ashlar.Extent, error) {
	var id ashlar.BucketID
	dir, err := in.meta.Get(ctx, 0, row.BucketKey(bucketName))
	if err != nil {
		return id, nil, err
	}
	var b row.Bucket
	if err := row.Decode(dir.Key, dir.Value, &b); err != nil {
		return id, nil, err
	}
	copy(id[:], b.Id)
	slot := row.Slot{Bucket: id, Slot: row.SlotOf(id, key, len(b.Slots))}
	shard := ashlar.ShardID(b.Slots[slot.Slot])
	r, err := in.meta.Get(ctx, shard, slot.Object(key))
	if err != nil {
		return id, nil, err
	}
	var o row.Object
	if err := row.Decode(r.Key, r.Value, &o); err != nil {
		return id, nil, err
	}
	columns := o.Extents
	if len(o.Manifest) > 0 {
		var m row.Manifest
		var mr meta.Row
		if mr, err = in.meta.Get(ctx, shard, slot.Manifest(o.Manifest)); err != nil {
			return id, nil, err
		}
		if err := row.Decode(mr.Key, mr.Value, &m); err != nil {
			return id, nil, err
		}
		columns = m.Extents
	}
	extents, err := columns.List()
	return id, extents, err
}

func (in *inspector) ask(ctx context.Context, s ashlar.Stripe) stripeAt {
	m := in.place.Map()
	id, g := m.Group(s.ID)
	at := stripeAt{Stripe: s, group: id}
	for i := range s.Code.Pieces() {
		disk := m.Disks[g.Disks[i]]
		at.disks = append(at.disks, disk.Name)
		at.has = append(at.has, in.askDisk(ctx, disk.Host, disk.ID, wire.PieceID{Stripe: s.ID, Index: uint8(i)}))
	}
	return at
}

func (in *inspector) askDisk(ctx context.Context, host ashlar.HostID, disk ashlar.DiskID, id wire.PieceID) string {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	h, err := in.registry.Pieces(host)
	if err != nil {
		return err.Error()
	}
	has, err := h.HasPieces(ctx, disk, []wire.PieceID{id})
	if err != nil {
		return err.Error()
	}
	return map[bool]string{true: "yes", false: "no"}[has[0]]
}
