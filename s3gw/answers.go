package s3gw

import (
	"errors"

	"ashlar/s3gw/s3"
)

// Where AWS and another store answer the same request in different ways, Ashlar
// answers as AWS documents it. Options.Answers has it the other way, for programs
// and test suites that were made for Ceph's RGW or for MinIO.
//
// RGW:
//
//	CreateBucket of one's own        BucketAlreadyExists where the ACL differs
//	CreateBucket, location us-east-1 is taken where that is the region
//	ListBuckets of nobody            an empty list instead of AccessDenied
//	ListObjects                      Prefix is not encoded by encoding-type
//	ListObjectsV2                    an empty continuation-token is the beginning
//	GET, HEAD of what is not there   with x-amz-delete-marker: false
//	GetBucketPolicyStatus            also without a policy, and by the bucket's ACL
//	PutObject, CopyObject with tags  need no rights to the tags
//	GetObjectAttributes              a composite checksum says how many parts it has
//	PUT of data without a length     is taken in Transfer-Encoding: chunked instead of 411
//	a checksum that is none          BadDigest instead of InvalidRequest
//	a part number beyond the last    400 InvalidPart instead of 416 InvalidPartNumber
//	X-Amz-Expires out of bounds      403 AccessDenied instead of 400
//
// MinIO, which has no ACLs:
//
//	an ACL with an object or bucket  is taken and does nothing, unless the bucket chose its ownership
//	listings with metadata=true      have UserMetadata and UserTags of what the sender may read
//	ListMultipartUploads             has no owners, and key-marker alone begins with that key's uploads
//	CompleteMultipartUpload          does not need the customer's key where parts have checksums
const (
	AnswersAWS   = "aws"
	AnswersRGW   = "rgw"
	AnswersMinIO = "minio"
)

// CheckAnswers judges a value of Options.Answers.
func CheckAnswers(v string) error {
	switch v {
	case "", AnswersAWS, AnswersRGW, AnswersMinIO:
	default:
		return errors.New("answers: want aws, rgw or minio")
	}
	return nil
}

// toClient returns the error as the client is told it.
func (s *Server) toClient(e *s3.Error) *s3.Error {
	if !s.rgw || e.RGW == s3.InternalError {
		return e
	}
	out := *e
	out.Code = e.RGW
	return &out
}
