package dev

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// TestAnswers: a cluster of either form comes up with RGW's answers, and gives them, and takes
// what is signed for another region or with Signature Version 2.
func TestAnswers(t *testing.T) {
	one, many := testConfig(t), testConfig(t)
	one.Answers, many.Answers = "rgw", "rgw"
	one.AnyRegion, many.AnyRegion = true, true
	one.SignatureV2, many.SignatureV2 = true, true
	for _, c := range []interface{ S3() string }{startOne(t, one), startMany(t, many)} {
		resp, err := http.Get(c.S3())
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK || !strings.Contains(string(body), "<Buckets></Buckets>") {
			t.Errorf("%s: %s %q %v", c.S3(), resp.Status, body, err)
		}
		client := s3Client(t, c.S3(), one)
		if _, err := client.ListBuckets(t.Context(), &s3.ListBucketsInput{}, func(o *s3.Options) { o.Region = "mars-1" }); err != nil {
			t.Errorf("%s: %v", c.S3(), err)
		}
		old, err := minio.New(strings.TrimPrefix(c.S3(), "http://"), &minio.Options{Creds: credentials.NewStaticV2(one.AccessKey, one.SecretKey, "")})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := old.ListBuckets(t.Context()); err != nil {
			t.Errorf("%s: %v", c.S3(), err)
		}
	}
	wrong := testConfig(t)
	wrong.Answers = "gcs"
	if _, err := wrong.readAccounts(); err == nil {
		t.Error("answers that nobody has are taken")
	}
}
