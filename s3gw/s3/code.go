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
	DeleteConflict
	EntityAlreadyExists
	EntityTooLarge
	EntityTooSmall
	ExpiredToken
	ExpiredTokenException
	IDPCommunicationError
	IllegalLocationConstraintException
	IllegalVersioningConfigurationException
	IncompleteBody
	InvalidAccessKeyID
	InvalidAction
	InvalidArgument
	InvalidBucketACLWithObjectOwnership
	InvalidBucketName
	InvalidBucketState
	InvalidChunkSizeError
	InvalidClientTokenID
	InvalidDigest
	InvalidEncryptionAlgorithmError
	InvalidIdentityToken
	InvalidInput
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
	InvalidTargetBucketForLogging
	InvalidToken
	InvalidURI
	IncorrectNumberOfFilesInPostRequest
	KMSNotFoundException
	KeyTooLongError
	LimitExceeded
	MalformedPolicyDocument
	MalformedPOSTRequest
	MalformedPolicy
	MalformedACLError
	MaxPostPreDataLengthExceededError
	MalformedTrailerError
	MalformedXML
	MetadataTooLarge
	MethodNotAllowed
	MissingAuthenticationToken
	MissingContentLength
	MissingRequestBodyError
	MissingSecurityHeader
	NoSuchBucket
	NoSuchBucketPolicy
	NoSuchCORSConfiguration
	NoSuchEntity
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
	PackedPolicyTooLarge
	PreconditionFailed
	QuotaExceeded
	ReplicationConfigurationNotFoundError
	RequestHeaderSectionTooLarge
	RequestTimeTooSkewed
	RequestTimeout
	ServerSideEncryptionConfigurationNotFoundError
	ServiceUnavailable
	SignatureDoesNotMatch
	SlowDown
	Throttling
	UnexpectedContent
	UnresolvableGrantByEmailAddress
	ValidationError
	XAmzContentSHA256Mismatch
)

type codeInfo struct {
	name    string
	status  int
	message string
}

// Clients compare these sentences: they are worded as the documentation of S3 words them.
var codes = [...]codeInfo{
	InternalError:                     {"InternalError", 500, "We encountered an internal error. Please try again."},
	AccessControlListNotSupported:     {"AccessControlListNotSupported", 400, "The bucket does not allow ACLs."},
	AccessDenied:                      {"AccessDenied", 403, "Access Denied"},
	AuthorizationHeaderMalformed:      {"AuthorizationHeaderMalformed", 400, "The authorization header is malformed."},
	AuthorizationQueryParametersError: {"AuthorizationQueryParametersError", 400, "The authorization query parameters are malformed."},
	AccessForbidden: {"AccessForbidden", 403, "CORSResponse: This CORS request is not allowed. This is usually because the evalution of Origin, " +
		"request method / Access-Control-Request-Method or Access-Control-Request-Headers are not whitelisted by the resource's CORS spec."},
	BadRequest:                              {"BadRequest", 400, "The request cannot be served."},
	BadDigest:                               {"BadDigest", 400, "The Content-MD5 you specified did not match what we received."},
	BucketAlreadyExists:                     {"BucketAlreadyExists", 409, "The requested bucket name is not available. The bucket namespace is shared by all users of the system. Please select a different name and try again."},
	BucketAlreadyOwnedByYou:                 {"BucketAlreadyOwnedByYou", 409, "Your previous request to create the named bucket succeeded and you already own it."},
	BucketNotEmpty:                          {"BucketNotEmpty", 409, "The bucket you tried to delete is not empty."},
	ConditionalRequestConflict:              {"ConditionalRequestConflict", 409, "A conflicting request ran at the same time. Please try again."},
	EntityTooLarge:                          {"EntityTooLarge", 400, "Your proposed upload exceeds the maximum allowed object size."},
	EntityTooSmall:                          {"EntityTooSmall", 400, "Your proposed upload is smaller than the minimum allowed size"},
	ExpiredToken:                            {"ExpiredToken", 400, "The session token has expired."},
	IllegalLocationConstraintException:      {"IllegalLocationConstraintException", 400, "The location constraint does not fit the region that you sent the request to."},
	IllegalVersioningConfigurationException: {"IllegalVersioningConfigurationException", 400, "The Versioning element must be specified"},
	IncompleteBody:                          {"IncompleteBody", 400, "You did not provide the number of bytes specified by the Content-Length HTTP header"},
	InvalidAccessKeyID:                      {"InvalidAccessKeyId", 403, "The AWS Access Key Id you provided does not exist in our records."},
	InvalidArgument:                         {"InvalidArgument", 400, "Invalid argument."},
	InvalidBucketACLWithObjectOwnership:     {"InvalidBucketAclWithObjectOwnership", 400, "Bucket cannot have ACLs set with ObjectOwnership's BucketOwnerEnforced setting"},
	InvalidBucketName:                       {"InvalidBucketName", 400, "The specified bucket is not valid."},
	InvalidBucketState:                      {"InvalidBucketState", 409, "The request is not valid for the current state of the bucket."},
	InvalidChunkSizeError:                   {"InvalidChunkSizeError", 400, "Only the last chunk is allowed to have a size less than 8192 bytes"},
	InvalidDigest:                           {"InvalidDigest", 400, "The Content-Md5 you specified is not valid."},
	InvalidEncryptionAlgorithmError:         {"InvalidEncryptionAlgorithmError", 400, "The encryption request that you specified is not valid. The valid value is AES256."},
	InvalidLocationConstraint:               {"InvalidLocationConstraint", 400, "The specified location-constraint is not valid"},
	InvalidPart:                             {"InvalidPart", 400, "One or more of the specified parts could not be found.  The part may not have been uploaded, or the specified entity tag may not match the part's entity tag."},
	InvalidPartNumber:                       {"InvalidPartNumber", 416, "The requested partnumber is not satisfiable."},
	InvalidPartOrder:                        {"InvalidPartOrder", 400, "The list of parts was not in ascending order. Parts must be ordered by part number."},
	InvalidPolicyDocument:                   {"InvalidPolicyDocument", 400, "The policy of the form is not valid."},
	IncorrectNumberOfFilesInPostRequest:     {"IncorrectNumberOfFilesInPostRequest", 400, "POST requires exactly one file upload per request."},
	MalformedPOSTRequest:                    {"MalformedPOSTRequest", 400, "The body of your POST request is not well-formed multipart/form-data."},
	MalformedPolicy:                         {"MalformedPolicy", 400, "The policy is malformed."},
	MalformedACLError:                       {"MalformedACLError", 400, "The XML you provided was not well-formed or did not validate against our published schema."},
	MaxPostPreDataLengthExceededError:       {"MaxPostPreDataLengthExceededError", 400, "The fields of the form before the file are too large."},
	InvalidRange:                            {"InvalidRange", 416, "The requested range is not satisfiable"},
	InvalidRedirectLocation:                 {"InvalidRedirectLocation", 400, "The website redirect location must have a prefix of 'http://' or 'https://' or '/'."},
	InvalidRequest:                          {"InvalidRequest", 400, "Invalid request."},
	InvalidRetentionPeriod:                  {"InvalidRetentionPeriod", 400, "The retention period is not valid."},
	InvalidStorageClass:                     {"InvalidStorageClass", 400, "The storage class is not valid."},
	InvalidTargetBucketForLogging:           {"InvalidTargetBucketForLogging", 400, "The target bucket for logging does not exist, is not owned by you, or does not have the appropriate grants for the log-delivery group."},
	InvalidTag:                              {"InvalidTag", 400, "A tag is not valid."},
	InvalidToken:                            {"InvalidToken", 400, "The session token is malformed or not valid."},
	InvalidURI:                              {"InvalidURI", 400, "Couldn't parse the specified URI."},
	KMSNotFoundException:                    {"KMS.NotFoundException", 400, "The encryption key does not exist, or the gateway has no keyring."},
	KeyTooLongError:                         {"KeyTooLongError", 400, "Your key is too long."},
	MalformedTrailerError:                   {"MalformedTrailerError", 400, "The request contained trailing data that was not well-formed or did not conform to our published schema."},
	MalformedXML:                            {"MalformedXML", 400, "The XML you provided was not well-formed or did not validate against our published schema."},
	MetadataTooLarge:                        {"MetadataTooLarge", 400, "Your metadata headers exceed the maximum allowed metadata size"},
	MethodNotAllowed:                        {"MethodNotAllowed", 405, "The specified method is not allowed against this resource."},
	MissingContentLength:                    {"MissingContentLength", 411, "You must provide the Content-Length HTTP header."},
	MissingRequestBodyError:                 {"MissingRequestBodyError", 400, "Request Body is empty"},
	MissingSecurityHeader:                   {"MissingSecurityHeader", 400, "Your request was missing a required header."},
	NoSuchBucket:                            {"NoSuchBucket", 404, "The specified bucket does not exist."},
	NoSuchBucketPolicy:                      {"NoSuchBucketPolicy", 404, "The bucket policy does not exist."},
	NoSuchCORSConfiguration:                 {"NoSuchCORSConfiguration", 404, "The CORS configuration does not exist"},
	NoSuchKey:                               {"NoSuchKey", 404, "The specified key does not exist."},
	NoSuchLifecycleConfiguration:            {"NoSuchLifecycleConfiguration", 404, "The lifecycle configuration does not exist"},
	NoSuchObjectLockConfiguration:           {"NoSuchObjectLockConfiguration", 404, "The specified object does not have a ObjectLock configuration."},
	NoSuchPublicAccessBlockConfiguration:    {"NoSuchPublicAccessBlockConfiguration", 404, "The public access block configuration was not found"},
	NoSuchTagSet:                            {"NoSuchTagSet", 404, "The TagSet does not exist."},
	NoSuchUpload:                            {"NoSuchUpload", 404, "The specified multipart upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed."},
	NoSuchVersion:                           {"NoSuchVersion", 404, "The specified version does not exist."},
	NoSuchWebsiteConfiguration:              {"NoSuchWebsiteConfiguration", 404, "The specified bucket does not have a website configuration"},
	NotImplemented:                          {"NotImplemented", 501, "A header you provided implies functionality that is not implemented."},
	NotModified:                             {"NotModified", 304, "Not modified."},
	ObjectLockConfigurationNotFoundError:    {"ObjectLockConfigurationNotFoundError", 404, "Object Lock configuration does not exist for this bucket."},
	OperationAborted:                        {"OperationAborted", 409, "A conflicting conditional operation is currently in progress against this resource. Please try again."},
	OwnershipControlsNotFoundError:          {"OwnershipControlsNotFoundError", 404, "The bucket ownership controls were not found."},
	PreconditionFailed:                      {"PreconditionFailed", 412, "At least one of the pre-conditions you specified did not hold."},
	QuotaExceeded:                           {"QuotaExceeded", 403, "The bucket has reached its quota. Delete objects, or have the quota raised."},
	ReplicationConfigurationNotFoundError: {"ReplicationConfigurationNotFoundError", 404,
		"The replication configuration was not found"},
	RequestHeaderSectionTooLarge: {"RequestHeaderSectionTooLarge", 400, "Your request header section exceeds the maximum allowed size."},
	RequestTimeTooSkewed:         {"RequestTimeTooSkewed", 403, "The difference between the request time and the current time is too large."},
	RequestTimeout:               {"RequestTimeout", 400, "Your socket connection to the server was not read from or written to within the timeout period. Idle connections will be closed."},
	ServerSideEncryptionConfigurationNotFoundError: {"ServerSideEncryptionConfigurationNotFoundError", 404,
		"The server side encryption configuration was not found"},
	ServiceUnavailable:              {"ServiceUnavailable", http.StatusServiceUnavailable, "The service cannot answer now. Please try again."},
	SignatureDoesNotMatch:           {"SignatureDoesNotMatch", 403, "The request signature we calculated does not match the signature you provided. Check your key and signing method."},
	SlowDown:                        {"SlowDown", http.StatusServiceUnavailable, "Please reduce your request rate."},
	UnexpectedContent:               {"UnexpectedContent", 400, "This request does not support content."},
	UnresolvableGrantByEmailAddress: {"UnresolvableGrantByEmailAddress", 400, "No account has the email address that you gave."},
	XAmzContentSHA256Mismatch:       {"XAmzContentSHA256Mismatch", 400, "The provided 'x-amz-content-sha256' header does not match what was computed."},
	DeleteConflict:                  {"DeleteConflict", 409, "The request was rejected because it attempted to delete a resource that has attached subordinate entities."},
	EntityAlreadyExists:             {"EntityAlreadyExists", 409, "The request was rejected because it attempted to create a resource that already exists."},
	ExpiredTokenException:           {"ExpiredTokenException", 400, "The web identity token that was passed is expired."},
	IDPCommunicationError:           {"IDPCommunicationError", 400, "The identity provider could not be reached to verify the token."},
	InvalidAction:                   {"InvalidAction", 400, "The action or operation requested is invalid."},
	InvalidClientTokenID:            {"InvalidClientTokenId", 403, "The security token included in the request is invalid."},
	InvalidIdentityToken:            {"InvalidIdentityToken", 400, "The web identity token that was passed could not be validated."},
	InvalidInput:                    {"InvalidInput", 400, "The request was rejected because an invalid or out-of-range value was supplied."},
	LimitExceeded:                   {"LimitExceeded", 409, "The request was rejected because it attempted to create resources beyond the limits of the account."},
	MalformedPolicyDocument:         {"MalformedPolicyDocument", 400, "The policy document was malformed."},
	MissingAuthenticationToken:      {"MissingAuthenticationToken", 403, "Request is missing Authentication Token"},
	NoSuchEntity:                    {"NoSuchEntity", 404, "The request was rejected because it referenced a resource that does not exist."},
	PackedPolicyTooLarge:            {"PackedPolicyTooLarge", 400, "The session policies are larger than allowed."},
	Throttling:                      {"Throttling", 400, "Rate exceeded"},
	ValidationError:                 {"ValidationError", 400, "The input fails to satisfy the constraints."},
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
