package s3gw

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"io"
	"sync"
	"time"

	"ashlar/s3gw/s3"
	"ashlar/s3gw/store"
)

// The Smart Object Storage API (1.0) of Veeam: what the storage can do, and how
// much room a bucket has, are documents under two fixed keys of every bucket.
// Whoever may read these keys reads them. They are made when they are asked for
// and stand in no listing; an object that somebody stored there is answered
// instead, like any other.

const systemFolder = ".system-d26a9498-cb7c-4a87-a44a-8ae204f5ba6c/"

var systemDocuments = map[s3.Key]func(*call) ([]byte, error){
	systemFolder + "system.xml": systemXML, systemFolder + "capacity.xml": capacityXML,
}

// systemDocument answers with the document under the key.
func (c *call) systemDocument() error {
	doc, err := systemDocuments[c.key](c)
	if err != nil {
		return err
	}
	sum := md5.Sum(doc)
	o := store.Object{
		Key: string(c.key), ETag: hex.EncodeToString(sum[:]), Bytes: uint64(len(doc)), Modified: c.s.now(),
		Attributes: store.Attributes{ContentType: "application/xml"},
	}
	return c.answerObject(&o, func(r s3.Range) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(doc[r.Offset:][:r.Length])), nil
	})
}

// systemXML says what of the protocol there is. The values of version and model
// stand in quotes.
func systemXML(*call) ([]byte, error) {
	var w s3.Writer
	w.BeginPlain("SystemInfo")
	w.Raw("ProtocolVersion", `"1.0"`)
	w.Raw("ModelName", `"Ashlar"`)
	w.Open("ProtocolCapabilities")
	w.Bool("CapacityInfo", true)
	w.Bool("UploadSessions", false)
	w.Bool("IAMSTS", false)
	w.Close("ProtocolCapabilities")
	w.Close("SystemInfo")
	return w.B, nil
}

// capacityXML tells the quota of the bucket and what is in it, or, where it has
// none, what the cluster holds and can hold. More than the cluster has room for is
// never available.
func capacityXML(c *call) ([]byte, error) {
	used, total, err := c.s.capacity.read(c.ctx)
	if err != nil {
		return nil, err
	}
	available := total - min(used, total)
	b, err := c.s.backend.HeadBucket(c.ctx, string(c.bucket))
	if err != nil {
		return nil, withBucket(err, c.bucket)
	}
	if quota := b.Quota.Bytes; quota > 0 {
		u, err := c.s.backend.BucketUsage(c.ctx, string(c.bucket))
		if err != nil {
			return nil, withBucket(err, c.bucket)
		}
		used, total = uint64(max(0, u.Bytes+u.OtherBytes+u.PartBytes)), quota
		available = min(available, total-min(used, total))
	}
	var w s3.Writer
	w.BeginPlain("CapacityInfo")
	w.Int("Capacity", int64(total))
	w.Int("Available", int64(available))
	w.Int("Used", int64(used))
	w.Close("CapacityInfo")
	return w.B, nil
}

// capacityFor is how long an answer of the quorum is used: clients may ask as
// often as they like.
const capacityFor = 10 * time.Second

// capacity remembers how full the cluster is.
type capacity struct {
	ask func(context.Context) (used, total uint64, err error)
	now func() time.Time
	mu  struct {
		sync.Mutex
		until       time.Time
		used, total uint64
		err         error
	}
}

// read returns how many bytes the cluster holds and can hold. One asks, and
// others wait for what it learns.
func (k *capacity) read(ctx context.Context) (used, total uint64, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if now := k.now(); !now.Before(k.mu.until) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), capacityFor)
		defer cancel()
		k.mu.used, k.mu.total, k.mu.err = k.ask(ctx)
		k.mu.until = now.Add(capacityFor)
	}
	return k.mu.used, k.mu.total, k.mu.err
}
