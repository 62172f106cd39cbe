package operate

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"

	"ashlar/s3gw/store"
)

// Filled is the answer to BucketQuota: what a bucket may hold and what it does.
type Filled struct {
	Bucket string `json:"bucket"`
	// QuotaBytes and QuotaObjects are bounds; 0 is none.
	QuotaBytes   uint64 `json:"quota_bytes"`
	QuotaObjects uint64 `json:"quota_objects"`
	// Bytes are those of all versions and of the parts of uploads, PartBytes only
	// the latter. Objects counts all versions, delete markers included.
	Bytes     int64 `json:"bytes"`
	PartBytes int64 `json:"part_bytes"`
	Objects   int64 `json:"objects"`
}

// QuotaArgs are the arguments of BucketQuota that change it.
func QuotaArgs(bucket string, bytes, objects uint64) []string {
	return []string{bucket, strconv.FormatUint(bytes, 10), strconv.FormatUint(objects, 10)}
}

// quota sets the quota if args say one, and tells how far it is used.
func (c *Cluster) quota(ctx context.Context, args []string) (*Filled, error) {
	s := store.New(c.Meta, nil, c.Maps, store.Options{})
	defer s.Close()
	name := args[0]
	if len(args) == 3 {
		var q store.Quota
		for i, n := range []*uint64{&q.Bytes, &q.Objects} {
			var err error
			if *n, err = strconv.ParseUint(args[1+i], 10, 64); err != nil {
				return nil, err
			}
		}
		if err := s.SetQuota(ctx, name, q); err != nil {
			return nil, err
		}
	}
	b, err := s.HeadBucket(ctx, name)
	if err != nil {
		return nil, err
	}
	u, err := s.BucketUsage(ctx, name)
	if err != nil {
		return nil, err
	}
	return &Filled{
		Bucket: name, QuotaBytes: b.Quota.Bytes, QuotaObjects: b.Quota.Objects,
		Bytes: u.Bytes + u.OtherBytes + u.PartBytes, PartBytes: u.PartBytes, Objects: u.Objects + u.Others,
	}, nil
}

// Render prints it for people.
func (f *Filled) Render(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "%s\tHELD\tQUOTA\n", f.Bucket)
	fmt.Fprintf(t, "bytes\t%d\t%s\n", f.Bytes, bound(f.QuotaBytes))
	fmt.Fprintf(t, "objects\t%d\t%s\n", f.Objects, bound(f.QuotaObjects))
	if err := t.Flush(); err != nil {
		return err
	}
	var err error
	if f.PartBytes > 0 {
		_, err = fmt.Fprintf(w, "%d of the bytes are parts of uploads that are neither completed nor aborted.\n", f.PartBytes)
	}
	return err
}

func bound(n uint64) string {
	if n == 0 {
		return "none"
	}
	return strconv.FormatUint(n, 10)
}
