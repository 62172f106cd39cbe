package s3

import (
	"context"
	"crypto/md5"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"time"
)

// Housekeeping is tried again, measuring is not.
const (
	triesMax      = 4
	retryPause    = 200 * time.Millisecond
	cleanupPasses = 4
	deleteWorkers = 4
	deleteBatch   = 1000 // keys in one DeleteObjects, S3's maximum
	// listBytesMax bounds a page of 1,000 keys of 1 KiB, escaped, with room to spare.
	listBytesMax = 8 << 20
)

// statusError is an answer that was not a success.
type statusError struct {
	status        int
	code, message string
}

func (e *statusError) Error() string {
	return fmt.Sprintf("%d %s %s", e.status, e.code, e.message)
}

// finish reads the body of an answer; for a failure it returns its S3 code.
func (c *conn) finish(a answer, max int) (body []byte, err error) {
	if a.status >= 300 {
		max = errorBodyMax
	}
	_, err = c.body(a, func(p []byte) {
		if len(body) < max {
			body = append(body, p[:min(len(p), max-len(body))]...)
		}
	})
	if err != nil || a.status < 300 {
		return body, err
	}
	var doc struct{ Code, Message string }
	xml.Unmarshal(body, &doc) // an answer that is not S3's has no code
	return nil, &statusError{status: a.status, code: doc.Code, message: doc.Message}
}

// call sends a request of the housekeeping and returns its body. It tries again
// after a broken connection and after a 5xx.
func (c *conn) call(ctx context.Context, r *request) (body []byte, err error) {
	for try := 1; ; try++ {
		var a answer
		if a, err = c.send(r, time.Now()); err == nil {
			body, err = c.finish(a, listBytesMax)
		}
		var bad *statusError
		if err == nil || try == triesMax || errors.As(err, &bad) && bad.status < 500 {
			return body, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(retryPause << try):
		}
	}
}

// makeBucket makes the bucket and says whether it did not exist before.
func (c *conn) makeBucket(ctx context.Context, bucket, region string) (made bool, err error) {
	path := "/" + escape(bucket, false)
	_, err = c.call(ctx, &request{method: "HEAD", path: path})
	if err == nil || Status(err) != 404 {
		return false, err
	}
	r := request{method: "PUT", path: path}
	if region != "us-east-1" {
		r.raw = []byte("<CreateBucketConfiguration><LocationConstraint>" + region + "</LocationConstraint></CreateBucketConfiguration>")
		r.bytes = int64(len(r.raw))
	}
	_, err = c.call(ctx, &r)
	return err == nil, err
}

func (c *conn) removeBucket(ctx context.Context, bucket string) error {
	_, err := c.call(ctx, &request{method: "DELETE", path: "/" + escape(bucket, false)})
	if Status(err) == 404 {
		return nil
	}
	return err
}

// list returns one page of keys and the token of the next, empty at the end.
func (c *conn) list(ctx context.Context, bucket, prefix, token string) (keys []string, next string, err error) {
	query := "encoding-type=url&list-type=2&max-keys=1000&prefix=" + escape(prefix, false)
	if token != "" {
		query = "continuation-token=" + escape(token, false) + "&" + query
	}
	body, err := c.call(ctx, &request{method: "GET", path: "/" + escape(bucket, false), query: query})
	if err != nil {
		return nil, "", err
	}
	var page struct {
		IsTruncated           bool
		NextContinuationToken string
		Contents              []struct{ Key string }
	}
	if err := xml.Unmarshal(body, &page); err != nil {
		return nil, "", fmt.Errorf("list: %w", err)
	}
	for _, o := range page.Contents {
		key, err := url.QueryUnescape(o.Key)
		if err != nil {
			return nil, "", fmt.Errorf("list: key %q: %w", o.Key, err)
		}
		keys = append(keys, key)
	}
	if page.IsTruncated {
		next = page.NextContinuationToken
	}
	return keys, next, nil
}

// deleteKeys removes up to deleteBatch keys with one call.
func (c *conn) deleteKeys(ctx context.Context, bucket string, keys []string) error {
	type object struct{ Key string }
	doc := struct {
		XMLName xml.Name `xml:"Delete"`
		Quiet   bool
		Object  []object
	}{Quiet: true}
	for _, k := range keys {
		doc.Object = append(doc.Object, object{k})
	}
	raw, err := xml.Marshal(doc)
	if err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	sum := md5.Sum(raw)
	body, err := c.call(ctx, &request{method: "POST", path: "/" + escape(bucket, false), query: "delete=",
		raw: raw, bytes: int64(len(raw)), contentMD5: base64.StdEncoding.EncodeToString(sum[:])})
	if err != nil {
		return err
	}
	var result struct {
		Error []struct{ Key, Code, Message string }
	}
	if err := xml.Unmarshal(body, &result); err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	if len(result.Error) > 0 {
		e := result.Error[0]
		return fmt.Errorf("delete: %d keys failed, the first is %s: %s %s", len(result.Error), e.Key, e.Code, e.Message)
	}
	return nil
}

// clean removes everything under the prefix. A pass that finds nothing proves
// that it is gone; what a pass could not delete, the next one tries again.
func (r *run) clean(ctx context.Context, bucket, prefix string) error {
	var last error
	for range cleanupPasses {
		found, err := r.cleanOnce(ctx, bucket, prefix)
		if found == 0 && err == nil {
			return nil
		}
		last = err
	}
	if last == nil {
		last = errors.New("objects keep appearing")
	}
	return last
}

func (r *run) cleanOnce(ctx context.Context, bucket, prefix string) (found int, err error) {
	pages := make(chan []string)
	failed := make([]error, deleteWorkers)
	var workers sync.WaitGroup
	for i := range deleteWorkers {
		workers.Go(func() { // ends when pages is closed below
			c := r.connection(i)
			defer c.drop()
			defer context.AfterFunc(ctx, c.interrupt)()
			for keys := range pages {
				if err := c.deleteKeys(ctx, bucket, keys); err != nil {
					failed[i] = err
				}
			}
		})
	}
	c := r.connection(0)
	defer c.drop()
	defer context.AfterFunc(ctx, c.interrupt)()
	var keys []string
	for token := ""; ; {
		if keys, token, err = c.list(ctx, bucket, prefix, token); err != nil {
			break
		}
		found += len(keys)
		if len(keys) > 0 {
			pages <- keys
		}
		if token == "" {
			break
		}
	}
	close(pages)
	workers.Wait()
	return found, errors.Join(append(failed, err)...)
}
