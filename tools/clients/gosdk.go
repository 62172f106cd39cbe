package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	"github.com/minio/minio-go/v7"
	minioCredentials "github.com/minio/minio-go/v7/pkg/credentials"

	"ashlar"
)

// sdkTimeout bounds what one check with an SDK takes.
const sdkTimeout = 5 * time.Minute

func (s *suite) sdk() *s3.Client {
	return s3.New(s3.Options{
		BaseEndpoint: aws.String(s.endpoint), Region: "us-east-1", UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(s.accessKey, s.secretKey, ""),
	})
}

func (s *suite) createBucket(bucket string) error {
	_, err := s.sdk().CreateBucket(s.ctx, &s3.CreateBucketInput{Bucket: &bucket})
	return err
}

// deleteBucket removes a bucket with all that is in it, if it is there.
func (s *suite) deleteBucket(bucket string) {
	ctx, cancel := context.WithTimeout(s.ctx, sdkTimeout)
	defer cancel()
	client := s.sdk()
	for {
		page, err := client.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: &bucket})
		if err != nil || len(page.Contents) == 0 {
			break
		}
		var all []types.ObjectIdentifier
		for _, o := range page.Contents {
			all = append(all, types.ObjectIdentifier{Key: o.Key})
		}
		if _, err := client.DeleteObjects(ctx, &s3.DeleteObjectsInput{Bucket: &bucket, Delete: &types.Delete{Objects: all}}); err != nil {
			break
		}
	}
	_, _ = client.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: &bucket}) // a leftover is seen by the next listing
}

// checkAWSGo drives aws-sdk-go-v2 as a program would that has its defaults.
func (s *suite) checkAWSGo() {
	ctx, cancel := context.WithTimeout(s.ctx, sdkTimeout)
	defer cancel()
	client, bucket := s.sdk(), s.bucket("b")
	defer s.undisturbed().deleteBucket(bucket)
	err := s.createBucket(bucket)
	s.check("CreateBucket", err)
	if err != nil {
		return
	}
	for _, f := range s.files {
		s.check("PutObject and GetObject "+f.size(), s.sdkCopy(ctx, client, bucket, f))
	}
	s.check("multipart upload with checksums", sdkMultipart(ctx, client, bucket))
	s.check("conditional PutObject", sdkConditional(ctx, client, bucket))
	s.check("presigned GET", s.sdkPresigned(ctx, client, bucket))
	s.check("pages of ListObjectsV2 and DeleteObjects", sdkListing(ctx, client, bucket))
	_, err = client.GetObject(ctx, &s3.GetObjectInput{Bucket: &bucket, Key: aws.String("nothing")})
	var missing *types.NoSuchKey
	if !errors.As(err, &missing) {
		err = fmt.Errorf("want NoSuchKey, got %v", err)
	} else {
		err = nil
	}
	s.check("a missing key is the SDK's NoSuchKey", err)
}

func (s *suite) sdkCopy(ctx context.Context, client *s3.Client, bucket string, f file) error {
	in, err := os.Open(f.path)
	if err != nil {
		return err
	}
	defer in.Close()
	key := aws.String("files/" + filepath.Base(f.path))
	if _, err := client.PutObject(ctx, &s3.PutObjectInput{Bucket: &bucket, Key: key, Body: in}); err != nil {
		return err
	}
	got, err := client.GetObject(ctx, &s3.GetObjectInput{Bucket: &bucket, Key: key, ChecksumMode: types.ChecksumModeEnabled})
	if err != nil {
		return err
	}
	defer got.Body.Close()
	return s.keep(f, got.Body)
}

// keep writes what came back to a file and compares it.
func (s *suite) keep(f file, r io.Reader) error {
	back := filepath.Join(s.dir, "sdk-back.bin")
	out, err := os.Create(back)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, r)
	if err := errors.Join(err, out.Close()); err != nil {
		return err
	}
	return f.same(back)
}

func sdkMultipart(ctx context.Context, client *s3.Client, bucket string) error {
	key := aws.String("parts")
	up, err := client.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: &bucket, Key: key, ChecksumAlgorithm: types.ChecksumAlgorithmCrc32c})
	if err != nil {
		return err
	}
	var parts []types.CompletedPart
	var want []byte
	for n := int32(1); n <= 3; n++ {
		body := bytes.Repeat([]byte{byte(n)}, 5*ashlar.MiB)
		want = append(want, body...)
		p, err := client.UploadPart(ctx, &s3.UploadPartInput{
			Bucket: &bucket, Key: key, UploadId: up.UploadId, PartNumber: &n, Body: bytes.NewReader(body), ChecksumAlgorithm: types.ChecksumAlgorithmCrc32c,
		})
		if err != nil {
			return err
		}
		parts = append(parts, types.CompletedPart{PartNumber: &n, ETag: p.ETag, ChecksumCRC32C: p.ChecksumCRC32C})
	}
	done, err := client.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
		Bucket: &bucket, Key: key, UploadId: up.UploadId, MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
	})
	if err != nil {
		return err
	}
	if !strings.HasSuffix(aws.ToString(done.ChecksumCRC32C), "-3") {
		return fmt.Errorf("composite checksum %q", aws.ToString(done.ChecksumCRC32C))
	}
	got, err := client.GetObject(ctx, &s3.GetObjectInput{Bucket: &bucket, Key: key, Range: aws.String(fmt.Sprintf("bytes=%d-%d", 5*ashlar.MiB-1, 5*ashlar.MiB))})
	if err != nil {
		return err
	}
	defer got.Body.Close()
	b, err := io.ReadAll(got.Body)
	if err == nil && !bytes.Equal(b, want[5*ashlar.MiB-1:5*ashlar.MiB+1]) {
		err = fmt.Errorf("a range over two parts is % x", b)
	}
	return err
}

func sdkConditional(ctx context.Context, client *s3.Client, bucket string) error {
	put := func(match, noneMatch *string) error {
		_, err := client.PutObject(ctx, &s3.PutObjectInput{Bucket: &bucket, Key: aws.String("once"), Body: strings.NewReader("x"), IfMatch: match, IfNoneMatch: noneMatch})
		return err
	}
	if err := put(nil, aws.String("*")); err != nil {
		return err
	}
	var refusal smithy.APIError
	if err := put(nil, aws.String("*")); !errors.As(err, &refusal) || refusal.ErrorCode() != "PreconditionFailed" {
		return fmt.Errorf("the second creation: %v", err)
	}
	head, err := client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &bucket, Key: aws.String("once")})
	if err != nil {
		return err
	}
	return put(head.ETag, nil)
}

func (s *suite) sdkPresigned(ctx context.Context, client *s3.Client, bucket string) error {
	url, err := s3.NewPresignClient(client).PresignGetObject(ctx, &s3.GetObjectInput{Bucket: &bucket, Key: aws.String("once")})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url.URL, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && (resp.StatusCode != http.StatusOK || string(b) != "x") {
		err = fmt.Errorf("%s: %q", resp.Status, b)
	}
	return err
}

func sdkListing(ctx context.Context, client *s3.Client, bucket string) error {
	const many = 25
	for i := range many {
		key := fmt.Sprintf("many/%02d", i)
		if _, err := client.PutObject(ctx, &s3.PutObjectInput{Bucket: &bucket, Key: &key, Body: strings.NewReader(key)}); err != nil {
			return err
		}
	}
	pages := s3.NewListObjectsV2Paginator(client, &s3.ListObjectsV2Input{Bucket: &bucket, Prefix: aws.String("many/"), MaxKeys: aws.Int32(10)})
	var found []types.ObjectIdentifier
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return err
		}
		for _, o := range page.Contents {
			found = append(found, types.ObjectIdentifier{Key: o.Key})
		}
	}
	if len(found) != many {
		return fmt.Errorf("%d keys listed, want %d", len(found), many)
	}
	out, err := client.DeleteObjects(ctx, &s3.DeleteObjectsInput{Bucket: &bucket, Delete: &types.Delete{Objects: found}})
	if err == nil && (len(out.Deleted) != many || len(out.Errors) > 0) {
		err = fmt.Errorf("%d deleted, %v", len(out.Deleted), out.Errors)
	}
	return err
}

// checkMinioGo drives minio-go with its defaults: streaming signatures over plain HTTP.
func (s *suite) checkMinioGo() {
	ctx, cancel := context.WithTimeout(s.ctx, sdkTimeout)
	defer cancel()
	address, secure := strings.CutPrefix(s.endpoint, "https://")
	client, err := minio.New(strings.TrimPrefix(address, "http://"), &minio.Options{
		Creds: minioCredentials.NewStaticV4(s.accessKey, s.secretKey, ""), Secure: secure,
	})
	bucket := s.bucket("b")
	if err == nil {
		defer s.undisturbed().deleteBucket(bucket)
		err = client.MakeBucket(ctx, bucket, minio.MakeBucketOptions{})
	}
	s.check("MakeBucket", err)
	if err != nil {
		return
	}
	for _, f := range s.files { // the large ones in parts
		name := filepath.Base(f.path)
		if _, err = client.FPutObject(ctx, bucket, name, f.path, minio.PutObjectOptions{PartSize: 16 * ashlar.MiB}); err == nil {
			back := filepath.Join(s.dir, "minio-back.bin")
			if err = client.FGetObject(ctx, bucket, name, back, minio.GetObjectOptions{}); err == nil {
				err = f.same(back)
			}
		}
		s.check("FPutObject and FGetObject "+f.size(), err)
	}
	s.check("a stream of unknown length", minioStream(ctx, client, bucket))
	s.check("ComposeObject, tags and StatObject", minioCompose(ctx, client, bucket, s.files[3]))
	var keys []string
	for o := range client.ListObjects(ctx, bucket, minio.ListObjectsOptions{Recursive: true}) {
		if err = o.Err; err != nil {
			break
		}
		keys = append(keys, o.Key)
	}
	if err == nil && (len(keys) != len(s.files)+2 || !slices.IsSorted(keys)) {
		err = fmt.Errorf("listed %q", keys)
	}
	s.check("ListObjects", err)
	for e := range client.RemoveObjects(ctx, bucket, client.ListObjects(ctx, bucket, minio.ListObjectsOptions{Recursive: true}), minio.RemoveObjectsOptions{}) {
		err = errors.Join(err, e.Err)
	}
	s.check("RemoveObjects and RemoveBucket", errors.Join(err, client.RemoveBucket(ctx, bucket)))
	_, err = client.StatObject(ctx, bucket, "nothing", minio.StatObjectOptions{})
	if code := minio.ToErrorResponse(err).Code; code != minio.NoSuchBucket && code != minio.NoSuchKey {
		err = fmt.Errorf("want NoSuchBucket or NoSuchKey, got %w", err)
	} else {
		err = nil
	}
	s.check("StatObject of nothing", err)
}

func minioStream(ctx context.Context, client *minio.Client, bucket string) error {
	want := bytes.Repeat([]byte("stream "), ashlar.MiB)
	if _, err := client.PutObject(ctx, bucket, "stream", io.MultiReader(bytes.NewReader(want)), -1, minio.PutObjectOptions{PartSize: 5 * ashlar.MiB}); err != nil {
		return err
	}
	o, err := client.GetObject(ctx, bucket, "stream", minio.GetObjectOptions{})
	if err != nil {
		return err
	}
	defer o.Close()
	got, err := io.ReadAll(o)
	if err == nil && !bytes.Equal(got, want) {
		err = fmt.Errorf("%d bytes came back of %d, or others", len(got), len(want))
	}
	return err
}

func minioCompose(ctx context.Context, client *minio.Client, bucket string, f file) error {
	source := minio.CopySrcOptions{Bucket: bucket, Object: filepath.Base(f.path)}
	to := minio.CopyDestOptions{Bucket: bucket, Object: "composed", UserTags: map[string]string{"k": "v"}, ReplaceTags: true}
	if _, err := client.ComposeObject(ctx, to, source, source); err != nil {
		return err
	}
	info, err := client.StatObject(ctx, bucket, "composed", minio.StatObjectOptions{})
	if err == nil && info.Size != 2*f.bytes {
		err = fmt.Errorf("%d bytes, want %d", info.Size, 2*f.bytes)
	}
	if err != nil {
		return err
	}
	tags, err := client.GetObjectTagging(ctx, bucket, "composed", minio.GetObjectTaggingOptions{})
	if err == nil && tags.ToMap()["k"] != "v" {
		err = fmt.Errorf("tags %v", tags.ToMap())
	}
	return err
}
