package notify

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// Event is what happened to a version of an object, or a Test, which is about a bucket
// alone.
type Event struct {
	Name string
	At   time.Time
	// Rule is the id of the rule by which it is told.
	Rule string
	// Owner is whose the bucket is.
	Bucket, Owner, Key string
	// Version and ETag are empty, and Bytes is zero, where they mean nothing.
	Version, ETag string
	Bytes         uint64
	// Principal did it, in a request from Source with the id Request to Host.
	Principal, Source, Request, Host string
	// ID is the same whenever the event is sent, and of no other event.
	ID string
	// Sequence grows from event to event of a key.
	Sequence uint64
}

// recordVersion is that of the form of S3's records which this is.
const recordVersion = "2.1"

type (
	principal struct {
		ID string `json:"principalId"`
	}
	object struct {
		Key       string  `json:"key"`
		Bytes     *uint64 `json:"size,omitempty"`
		ETag      string  `json:"eTag,omitempty"`
		Version   string  `json:"versionId,omitempty"`
		Sequencer string  `json:"sequencer"`
	}
	bucket struct {
		Name  string    `json:"name"`
		Owner principal `json:"ownerIdentity"`
		ARN   string    `json:"arn"`
	}
	s3Part struct {
		Schema string `json:"s3SchemaVersion"`
		Rule   string `json:"configurationId"`
		Bucket bucket `json:"bucket"`
		Object object `json:"object"`
	}
	record struct {
		Version  string            `json:"eventVersion"`
		Source   string            `json:"eventSource"`
		Region   string            `json:"awsRegion"`
		Time     string            `json:"eventTime"`
		Name     string            `json:"eventName"`
		User     principal         `json:"userIdentity"`
		Request  map[string]string `json:"requestParameters"`
		Response map[string]string `json:"responseElements"`
		S3       s3Part            `json:"s3"`
	}
	test struct {
		Service string
		Event   string
		Time    string
		Bucket  string
		Request string `json:"RequestId"`
		Host    string `json:"HostId"`
	}
)

// Record returns the message that a target gets: one record, in the form of S3's, or
// what S3 sends as a test.
func (e *Event) Record(region string) ([]byte, error) {
	at := e.At.UTC().Format("2006-01-02T15:04:05.000Z")
	if e.Name == Test {
		return json.Marshal(test{"Amazon S3", e.Name, at, e.Bucket, e.Request, e.Host})
	}
	r := record{
		Version: recordVersion, Source: "aws:s3", Region: region, Time: at,
		Name: strings.TrimPrefix(e.Name, "s3:"), User: principal{e.Principal},
		Request:  map[string]string{"sourceIPAddress": e.Source},
		Response: map[string]string{"x-amz-request-id": e.Request, "x-amz-id-2": e.Host},
		S3: s3Part{
			Schema: "1.0", Rule: e.Rule,
			Bucket: bucket{e.Bucket, principal{e.Owner}, "arn:aws:s3:::" + e.Bucket},
			Object: object{Key: escapeKey(e.Key), ETag: e.ETag, Version: e.Version, Sequencer: fmt.Sprintf("%016X", e.Sequence)},
		},
	}
	if e.ETag != "" {
		r.S3.Object.Bytes = &e.Bytes
	}
	return json.Marshal(map[string][]record{"Records": {r}})
}

// escapeKey writes a key as S3 does in its records: like a form, but for slashes.
func escapeKey(key string) string {
	return strings.ReplaceAll(url.QueryEscape(key), "%2F", "/")
}
