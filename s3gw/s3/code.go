package s3

import "net/http"

// Code is an S3 error code. The list is closed; String gives the name on the
// wire and Status the HTTP status that goes with it.
type Code uint8

// The codes that Ashlar answers, in alphabetical order.
const (
	InternalError Code = iota
	AccessControlListNotSupported
	AccessDenied
	AccessForbidden
	AuthorizationHeaderMalformed
	AuthorizationQueryParametersError
	BadDigest
	BadRequest
	BucketAlreadyExists
	BucketAlreadyOwnedByYou
	BucketNotEmpty
	ConditionalRequestConflict
	EntityTooLarge
	EntityTooSmall
	ExpiredToken
	IllegalLocationConstraintException
	IllegalVersioningConfigurationException
	IncompleteBody
	InvalidAccessKeyID
	InvalidArgument
	InvalidBucketACLWithObjectOwnership
	InvalidBucketName
	InvalidBucketState
	InvalidDigest
	InvalidEncryptionAlgorithmError
	InvalidLocationConstraint
	InvalidPart
	InvalidPartNumber
	InvalidPartOrder
	InvalidPolicyDocument
	InvalidRange
	InvalidRedirectLocation
	InvalidRequest
	InvalidRetentionPeriod
	InvalidStorageClass
	InvalidTag
	InvalidToken
	InvalidURI
	IncorrectNumberOfFilesInPostRequest
	KMSNotFoundException
	KeyTooLongError
	MalformedPOSTRequest
	MalformedPolicy
	MalformedACLError
	MaxPostPreDataLengthExceededError
	MalformedTrailerError
	MalformedXML
	MetadataTooLarge
	MethodNotAllowed
	MissingContentLength
	MissingRequestBodyError
	MissingSecurityHeader
	NoSuchBucket
	NoSuchBucketPolicy
	NoSuchCORSConfiguration
	NoSuchKey
	NoSuchLifecycleConfiguration
	NoSuchObjectLockConfiguration
	NoSuchPublicAccessBlockConfiguration
	NoSuchTagSet
	NoSuchUpload
	NoSuchVersion
	NoSuchWebsiteConfiguration
	NotImplemented
	NotModified
	ObjectLockConfigurationNotFoundError
	OperationAborted
	OwnershipControlsNotFoundError
	PreconditionFailed
	ReplicationConfigurationNotFoundError
	RequestHeaderSectionTooLarge
	RequestTimeTooSkewed
	RequestTimeout
	ServerSideEncryptionConfigurationNotFoundError
	ServiceUnavailable
	SignatureDoesNotMatch
	SlowDown
	UnresolvableGrantByEmailAddress
	XAmzContentSHA256Mismatch
)

type codeInfo struct {
	name    string
	status  int
	message string
}

// Clients compare some of these sentences, as of NoSuchBucket: those are worded as S3 words them.
var codes = [...]codeInfo{
	InternalError:                           {"InternalError", 500, "The server met an unexpected condition. Please try again."},
	AccessControlListNotSupported:           {"AccessControlListNotSupported", 400, "The bucket does not allow ACLs."},
	AccessDenied:                            {"AccessDenied", 403, "Access Denied"},
	AuthorizationHeaderMalformed:            {"AuthorizationHeaderMalformed", 400, "The authorization header is malformed."},
	AuthorizationQueryParametersError:       {"AuthorizationQueryParametersError", 400, "The authorization query parameters are malformed."},
	AccessForbidden:                         {"AccessForbidden", 403, "CORSResponse: This CORS request is not allowed."},
	BadRequest:                              {"BadRequest", 400, "The request cannot be served."},
	BadDigest:                               {"BadDigest", 400, "The digest that you gave does not match the content that arrived."},
	BucketAlreadyExists:                     {"BucketAlreadyExists", 409, "The bucket name is taken by another account. Choose another name."},
	BucketAlreadyOwnedByYou:                 {"BucketAlreadyOwnedByYou", 409, "You made this bucket earlier and you own it."},
	BucketNotEmpty:                          {"BucketNotEmpty", 409, "The bucket you tried to delete is not empty"},
	ConditionalRequestConflict:              {"ConditionalRequestConflict", 409, "A conflicting request ran at the same time. Please try again."},
	EntityTooLarge:                          {"EntityTooLarge", 400, "The upload is larger than the maximum that is allowed."},
	EntityTooSmall:                          {"EntityTooSmall", 400, "The upload is smaller than the minimum that is allowed."},
	ExpiredToken:                            {"ExpiredToken", 400, "The session token has expired."},
	IllegalLocationConstraintException:      {"IllegalLocationConstraintException", 400, "The location constraint does not fit the region that you sent the request to."},
	IllegalVersioningConfigurationException: {"IllegalVersioningConfigurationException", 400, "The versioning configuration is not valid."},
	IncompleteBody:                          {"IncompleteBody", 400, "The body holds fewer or more bytes than its headers announce."},
	InvalidAccessKeyID:                      {"InvalidAccessKeyId", 403, "The access key does not exist."},
	InvalidArgument:                         {"InvalidArgument", 400, "Invalid argument."},
	InvalidBucketACLWithObjectOwnership:     {"InvalidBucketAclWithObjectOwnership", 400, "A bucket cannot have this ACL with ObjectOwnership's BucketOwnerEnforced setting."},
	InvalidBucketName:                       {"InvalidBucketName", 400, "The bucket name is not valid."},
	InvalidBucketState:                      {"InvalidBucketState", 409, "The request is not valid for the current state of the bucket."},
	InvalidDigest:                           {"InvalidDigest", 400, "The Content-MD5 that you gave is not valid."},
	InvalidEncryptionAlgorithmError:         {"InvalidEncryptionAlgorithmError", 400, "The encryption request that you specified is not valid. The valid value is AES256."},
	InvalidLocationConstraint:               {"InvalidLocationConstraint", 400, "The location constraint is not valid."},
	InvalidPart:                             {"InvalidPart", 400, "A part was not found, or its entity tag differs."},
	InvalidPartNumber:                       {"InvalidPartNumber", 416, "The requested part number is not satisfiable."},
	InvalidPartOrder:                        {"InvalidPartOrder", 400, "The parts are not in ascending order."},
	InvalidPolicyDocument:                   {"InvalidPolicyDocument", 400, "The policy of the form is not valid."},
	IncorrectNumberOfFilesInPostRequest:     {"IncorrectNumberOfFilesInPostRequest", 400, "POST requires exactly one file upload per request."},
	MalformedPOSTRequest:                    {"MalformedPOSTRequest", 400, "The body of the POST request is not well-formed multipart/form-data."},
	MalformedPolicy:                         {"MalformedPolicy", 400, "The policy is malformed."},
	MalformedACLError:                       {"MalformedACLError", 400, "The ACL is not well formed or does not follow the schema."},
	MaxPostPreDataLengthExceededError:       {"MaxPostPreDataLengthExceededError", 400, "The fields of the form before the file are too large."},
	InvalidRange:                            {"InvalidRange", 416, "The requested range is not satisfiable."},
	InvalidRedirectLocation:                 {"InvalidRedirectLocation", 400, "The website redirect location must begin with http://, https:// or / and be at most 2 KiB long."},
	InvalidRequest:                          {"InvalidRequest", 400, "Invalid request."},
	InvalidRetentionPeriod:                  {"InvalidRetentionPeriod", 400, "The retention period is not valid."},
	InvalidStorageClass:                     {"InvalidStorageClass", 400, "The storage class is not valid."},
	InvalidTag:                              {"InvalidTag", 400, "A tag is not valid."},
	InvalidToken:                            {"InvalidToken", 400, "The session token is malformed or not valid."},
	InvalidURI:                              {"InvalidURI", 400, "The request URI cannot be parsed."},
	KMSNotFoundException:                    {"KMS.NotFoundException", 400, "The encryption key does not exist, or the gateway has no keyring."},
	KeyTooLongError:                         {"KeyTooLongError", 400, "The key is longer than 1024 bytes."},
	MalformedTrailerError:                   {"MalformedTrailerError", 400, "The trailing data is not well formed."},
	MalformedXML:                            {"MalformedXML", 400, "The XML is not well formed or does not follow the schema."},
	MetadataTooLarge:                        {"MetadataTooLarge", 400, "The metadata headers are larger than 2048 bytes."},
	MethodNotAllowed:                        {"MethodNotAllowed", 405, "The method is not allowed against this resource."},
	MissingContentLength:                    {"MissingContentLength", 411, "The Content-Length header is required."},
	MissingRequestBodyError:                 {"MissingRequestBodyError", 400, "The request body is empty."},
	MissingSecurityHeader:                   {"MissingSecurityHeader", 400, "The request is missing a header or a body that it needs."},
	NoSuchBucket:                            {"NoSuchBucket", 404, "The specified bucket does not exist"},
	NoSuchBucketPolicy:                      {"NoSuchBucketPolicy", 404, "The bucket has no policy."},
	NoSuchCORSConfiguration:                 {"NoSuchCORSConfiguration", 404, "The bucket has no CORS configuration."},
	NoSuchKey:                               {"NoSuchKey", 404, "The specified key does not exist."},
	NoSuchLifecycleConfiguration:            {"NoSuchLifecycleConfiguration", 404, "The bucket has no lifecycle configuration."},
	NoSuchObjectLockConfiguration:           {"NoSuchObjectLockConfiguration", 404, "The specified object does not have a ObjectLock configuration"},
	NoSuchPublicAccessBlockConfiguration:    {"NoSuchPublicAccessBlockConfiguration", 404, "The bucket has no public access block configuration."},
	NoSuchTagSet:                            {"NoSuchTagSet", 404, "The bucket has no tags."},
	NoSuchUpload:                            {"NoSuchUpload", 404, "The multipart upload does not exist; it may have been aborted or completed."},
	NoSuchVersion:                           {"NoSuchVersion", 404, "The version does not exist."},
	NoSuchWebsiteConfiguration:              {"NoSuchWebsiteConfiguration", 404, "The bucket has no website configuration."},
	NotImplemented:                          {"NotImplemented", 501, "The request asks for something that is not implemented."},
	NotModified:                             {"NotModified", 304, "Not modified."},
	ObjectLockConfigurationNotFoundError:    {"ObjectLockConfigurationNotFoundError", 404, "The bucket has no object lock configuration."},
	OperationAborted:                        {"OperationAborted", 409, "A conflicting operation is in progress. Please try again."},
	OwnershipControlsNotFoundError:          {"OwnershipControlsNotFoundError", 404, "The bucket has no ownership controls."},
	PreconditionFailed:                      {"PreconditionFailed", 412, "A precondition of the request does not hold."},
	ReplicationConfigurationNotFoundError: {"ReplicationConfigurationNotFoundError", 404,
		"The bucket has no replication configuration."},
	RequestHeaderSectionTooLarge: {"RequestHeaderSectionTooLarge", 400, "The request headers are larger than 8192 bytes."},
	RequestTimeTooSkewed:         {"RequestTimeTooSkewed", 403, "The time of the request and the time of the server differ too much."},
	RequestTimeout:               {"RequestTimeout", 400, "The body did not arrive in time."},
	ServerSideEncryptionConfigurationNotFoundError: {"ServerSideEncryptionConfigurationNotFoundError", 404,
		"The bucket has no encryption configuration."},
	ServiceUnavailable:              {"ServiceUnavailable", http.StatusServiceUnavailable, "The service cannot answer now. Please try again."},
	SignatureDoesNotMatch:           {"SignatureDoesNotMatch", 403, "The signature that we computed differs from the one that you gave. Check your secret key and signing method."},
	SlowDown:                        {"SlowDown", http.StatusServiceUnavailable, "Please reduce your request rate."},
	UnresolvableGrantByEmailAddress: {"UnresolvableGrantByEmailAddress", 400, "No account has the email address that you gave."},
	XAmzContentSHA256Mismatch:       {"XAmzContentSHA256Mismatch", 400, "The x-amz-content-sha256 that you gave does not match the content that arrived."},
}

// String returns the code as it stands in the XML.
func (c Code) String() string { return codes[c].name }

// Status returns the HTTP status that goes with the code.
func (c Code) Status() int { return codes[c].status }

// Field is one more element of an error document, for example Region.
type Field struct{ Name, Value string }

// Error is an answer that says why not. It passes through the store's wrapping
// and is found again by errors.As.
type Error struct {
	Code Code
	// Message replaces the table's sentence when it is not empty.
	Message string
	// Fields are further elements of the document.
	Fields []Field
	// Headers are sent besides.
	Headers []Field
	// RGW is the code that Ceph's RGW has for it, where that is another one: it is sent
	// where the gateway is set to RGW's answers.
	RGW Code
	// RetryAfterSeconds is sent as Retry-After when it is not zero.
	RetryAfterSeconds int
	// Err is the cause, for the log only: it is never sent to the client.
	Err error
}

// E builds an Error. An empty message takes the one of the code.
func E(code Code, message string) *Error { return &Error{Code: code, Message: message} }

// Text returns the sentence that the client sees.
func (e *Error) Text() string {
	if e.Message != "" {
		return e.Message
	}
	return codes[e.Code].message
}

func (e *Error) Error() string {
	s := "s3: " + e.Code.String() + ": " + e.Text()
	if e.Err != nil {
		s += " (" + e.Err.Error() + ")"
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// WithHeader returns the error with one more header in its answer.
func (e *Error) WithHeader(name, value string) *Error {
	e.Headers = append(e.Headers, Field{name, value})
	return e
}

// OnRGW returns the error with the code that RGW has for it.
func (e *Error) OnRGW(code Code) *Error {
	e.RGW = code
	return e
}

// With returns the error with one more element in its document.
func (e *Error) With(name, value string) *Error {
	e.Fields = append(e.Fields, Field{name, value})
	return e
}
