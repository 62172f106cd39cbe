package s3gw

import (
	"slices"
	"strings"

	"ashlar/s3gw/s3"
)

// target says what a request names.
type target uint8

const (
	onService target = iota
	onBucket
	onObject
)

// bodyMode says what a route does with a body.
type bodyMode uint8

const (
	noBody       bodyMode = iota // none is expected; a small one is verified and dropped
	dataBody                     // user bytes, up to 5 GiB
	xmlBody                      // a document; checksum headers are the document's
	completeBody                 // a document; checksum headers are the object's
	formFile                     // the file of a form, which reads its body itself
)

// route is one line of the table: everything that a request can ask for.
type route struct {
	op     string // AWS's name, for logs and metrics
	need   string // the action of IAM that it is; see rights for what comes on top
	method string
	on     target
	// sub is the subresource, the query parameter that picks the operation.
	sub string
	// copy says that x-amz-copy-source is present.
	copy  bool
	body  bodyMode
	serve func(*call) error
}

// routes is the whole surface of the gateway. A test walks it and proves that
// every line refuses a request that is not authenticated.
var routes = []route{
	{op: "ListBuckets", need: "s3:ListAllMyBuckets", method: "GET", on: onService, serve: listBuckets},

	{op: "TraceRequests", need: "ashlar:TraceRequests", method: "GET", on: onService, sub: subTrace, serve: traceRequests},

	{op: "CreateBucket", need: "s3:CreateBucket", method: "PUT", on: onBucket, body: xmlBody, serve: createBucket},
	{op: "HeadBucket", need: "s3:ListBucket", method: "HEAD", on: onBucket, serve: headBucket},
	{op: "DeleteBucket", need: "s3:DeleteBucket", method: "DELETE", on: onBucket, serve: deleteBucket},
	{op: "ListObjects", need: "s3:ListBucket", method: "GET", on: onBucket, serve: listObjectsV1},
	{op: "ListObjectsV2", need: "s3:ListBucket", method: "GET", on: onBucket, sub: "list-type", serve: listObjectsV2},
	{op: "ListMultipartUploads", need: "s3:ListBucketMultipartUploads", method: "GET", on: onBucket, sub: "uploads", serve: listUploads},
	{op: "PostObject", need: "s3:PutObject", method: "POST", on: onBucket, body: formFile, serve: postObject},
	{op: "DeleteObjects", need: "s3:DeleteObject", method: "POST", on: onBucket, sub: "delete", body: xmlBody, serve: deleteObjects},
	{op: "GetBucketLocation", need: "s3:GetBucketLocation", method: "GET", on: onBucket, sub: "location", serve: getBucketLocation},
	{op: "GetBucketAcl", need: "s3:GetBucketAcl", method: "GET", on: onBucket, sub: "acl", serve: getBucketACL},
	{op: "PutBucketAcl", need: "s3:PutBucketAcl", method: "PUT", on: onBucket, sub: "acl", body: xmlBody, serve: putBucketACL},
	{op: "GetBucketVersioning", need: "s3:GetBucketVersioning", method: "GET", on: onBucket, sub: "versioning", serve: getBucketVersioning},
	{op: "PutBucketVersioning", need: "s3:PutBucketVersioning", method: "PUT", on: onBucket, sub: "versioning", body: xmlBody, serve: putBucketVersioning},
	{op: "ListObjectVersions", need: "s3:ListBucketVersions", method: "GET", on: onBucket, sub: "versions", serve: listVersions},
	{op: "GetBucketNotificationConfiguration", need: "s3:GetBucketNotification", method: "GET", on: onBucket, sub: "notification", serve: getNotification},
	{op: "PutBucketNotificationConfiguration", need: "s3:PutBucketNotification", method: "PUT", on: onBucket, sub: "notification", body: xmlBody, serve: putNotification},
	{op: "GetBucketLogging", need: "s3:GetBucketLogging", method: "GET", on: onBucket, sub: "logging", serve: getLogging},
	{op: "PutBucketLogging", need: "s3:PutBucketLogging", method: "PUT", on: onBucket, sub: "logging", body: xmlBody, serve: putLogging},
	{op: "GetBucketAccelerateConfiguration", need: "s3:GetAccelerateConfiguration", method: "GET", on: onBucket, sub: "accelerate", serve: emptyDocument("AccelerateConfiguration")},
	{op: "GetBucketRequestPayment", need: "s3:GetBucketRequestPayment", method: "GET", on: onBucket, sub: "requestPayment", serve: getRequestPayment},
	{op: "GetBucketOwnershipControls", need: "s3:GetBucketOwnershipControls", method: "GET", on: onBucket, sub: "ownershipControls", serve: getOwnershipControls},
	{op: "PutBucketOwnershipControls", need: "s3:PutBucketOwnershipControls", method: "PUT", on: onBucket, sub: "ownershipControls", body: xmlBody, serve: putOwnershipControls},
	{op: "DeleteBucketOwnershipControls", need: "s3:PutBucketOwnershipControls", method: "DELETE", on: onBucket, sub: "ownershipControls", serve: deleteOwnershipControls},
	{op: "GetBucketPolicy", need: "s3:GetBucketPolicy", method: "GET", on: onBucket, sub: "policy", serve: getBucketPolicy},
	{op: "PutBucketPolicy", need: "s3:PutBucketPolicy", method: "PUT", on: onBucket, sub: "policy", body: xmlBody, serve: putBucketPolicy},
	{op: "DeleteBucketPolicy", need: "s3:DeleteBucketPolicy", method: "DELETE", on: onBucket, sub: "policy", serve: deleteSetting(settingPolicy)},
	{op: "GetBucketPolicyStatus", need: "s3:GetBucketPolicyStatus", method: "GET", on: onBucket, sub: "policyStatus", serve: getBucketPolicyStatus},
	{op: "GetBucketTagging", need: "s3:GetBucketTagging", method: "GET", on: onBucket, sub: "tagging", serve: getBucketTagging},
	{op: "PutBucketTagging", need: "s3:PutBucketTagging", method: "PUT", on: onBucket, sub: "tagging", body: xmlBody, serve: putBucketTagging},
	{op: "DeleteBucketTagging", need: "s3:PutBucketTagging", method: "DELETE", on: onBucket, sub: "tagging", serve: deleteSetting(settingTags)},
	{op: "GetBucketLifecycleConfiguration", need: "s3:GetLifecycleConfiguration", method: "GET", on: onBucket, sub: "lifecycle", serve: getLifecycle},
	{op: "PutBucketLifecycleConfiguration", need: "s3:PutLifecycleConfiguration", method: "PUT", on: onBucket, sub: "lifecycle", body: xmlBody, serve: putLifecycle},
	{op: "DeleteBucketLifecycle", need: "s3:PutLifecycleConfiguration", method: "DELETE", on: onBucket, sub: "lifecycle", serve: deleteLifecycle},
	{op: "GetBucketCors", need: "s3:GetBucketCORS", method: "GET", on: onBucket, sub: "cors", serve: getSetting(settingCORS, s3.NoSuchCORSConfiguration)},
	{op: "PutBucketCors", need: "s3:PutBucketCORS", method: "PUT", on: onBucket, sub: "cors", body: xmlBody, serve: putSetting(settingCORS, s3.CheckCORS)},
	{op: "DeleteBucketCors", need: "s3:PutBucketCORS", method: "DELETE", on: onBucket, sub: "cors", serve: deleteSetting(settingCORS)},
	{op: "GetBucketEncryption", need: "s3:GetEncryptionConfiguration", method: "GET", on: onBucket, sub: "encryption", serve: getBucketEncryption},
	{op: "PutBucketEncryption", need: "s3:PutEncryptionConfiguration", method: "PUT", on: onBucket, sub: "encryption", body: xmlBody, serve: putBucketEncryption},
	{op: "DeleteBucketEncryption", need: "s3:PutEncryptionConfiguration", method: "DELETE", on: onBucket, sub: "encryption", serve: deleteBucketEncryption},
	{op: "GetObjectLockConfiguration", need: "s3:GetBucketObjectLockConfiguration", method: "GET", on: onBucket, sub: "object-lock", serve: getObjectLock},
	{op: "PutObjectLockConfiguration", need: "s3:PutBucketObjectLockConfiguration", method: "PUT", on: onBucket, sub: "object-lock", body: xmlBody, serve: putObjectLock},
	{op: "GetPublicAccessBlock", need: "s3:GetBucketPublicAccessBlock", method: "GET", on: onBucket, sub: "publicAccessBlock", serve: getSetting(settingPublicBlock, s3.NoSuchPublicAccessBlockConfiguration)},
	{op: "PutPublicAccessBlock", need: "s3:PutBucketPublicAccessBlock", method: "PUT", on: onBucket, sub: "publicAccessBlock", body: xmlBody, serve: putSetting(settingPublicBlock, s3.CheckPublicAccessBlock)},
	{op: "DeletePublicAccessBlock", need: "s3:PutBucketPublicAccessBlock", method: "DELETE", on: onBucket, sub: "publicAccessBlock", serve: deleteSetting(settingPublicBlock)},
	{op: "GetBucketReplication", need: "s3:GetReplicationConfiguration", method: "GET", on: onBucket, sub: "replication", serve: notConfigured(s3.ReplicationConfigurationNotFoundError)},
	{op: "GetBucketWebsite", need: "s3:GetBucketWebsite", method: "GET", on: onBucket, sub: "website", serve: getSetting(settingWebsite, s3.NoSuchWebsiteConfiguration)},
	{op: "PutBucketWebsite", need: "s3:PutBucketWebsite", method: "PUT", on: onBucket, sub: "website", body: xmlBody, serve: putSetting(settingWebsite, s3.CheckWebsite)},
	{op: "DeleteBucketWebsite", need: "s3:DeleteBucketWebsite", method: "DELETE", on: onBucket, sub: "website", serve: deleteSetting(settingWebsite)},

	{op: "GetBucketReads", need: "ashlar:GetBucketReads", method: "GET", on: onBucket, sub: subReads, serve: getBucketReads},
	{op: "PutBucketReads", need: "ashlar:PutBucketReads", method: "PUT", on: onBucket, sub: subReads, serve: putBucketReads},

	{op: "PutObject", need: "s3:PutObject", method: "PUT", on: onObject, body: dataBody, serve: putObject},
	{op: "CopyObject", need: "s3:PutObject", method: "PUT", on: onObject, copy: true, serve: copyObject},
	{op: "GetObject", need: "s3:GetObject", method: "GET", on: onObject, serve: getObject},
	{op: "HeadObject", need: "s3:GetObject", method: "HEAD", on: onObject, serve: getObject},
	{op: "DeleteObject", need: "s3:DeleteObject", method: "DELETE", on: onObject, serve: deleteObject},
	{op: "GetObjectAcl", need: "s3:GetObjectAcl", method: "GET", on: onObject, sub: "acl", serve: getObjectACL},
	{op: "PutObjectAcl", need: "s3:PutObjectAcl", method: "PUT", on: onObject, sub: "acl", body: xmlBody, serve: putObjectACL},
	{op: "GetObjectTagging", need: "s3:GetObjectTagging", method: "GET", on: onObject, sub: "tagging", serve: getObjectTagging},
	{op: "PutObjectTagging", need: "s3:PutObjectTagging", method: "PUT", on: onObject, sub: "tagging", body: xmlBody, serve: putObjectTagging},
	{op: "DeleteObjectTagging", need: "s3:DeleteObjectTagging", method: "DELETE", on: onObject, sub: "tagging", serve: deleteObjectTagging},
	{op: "GetObjectAttributes", need: "s3:GetObjectAttributes", method: "GET", on: onObject, sub: "attributes", serve: getObjectAttributes},
	{op: "GetObjectRetention", need: "s3:GetObjectRetention", method: "GET", on: onObject, sub: "retention", serve: getRetention},
	{op: "PutObjectRetention", need: "s3:PutObjectRetention", method: "PUT", on: onObject, sub: "retention", body: xmlBody, serve: putRetention},
	{op: "GetObjectLegalHold", need: "s3:GetObjectLegalHold", method: "GET", on: onObject, sub: "legal-hold", serve: getLegalHold},
	{op: "PutObjectLegalHold", need: "s3:PutObjectLegalHold", method: "PUT", on: onObject, sub: "legal-hold", body: xmlBody, serve: putLegalHold},

	{op: "CreateMultipartUpload", need: "s3:PutObject", method: "POST", on: onObject, sub: "uploads", serve: createUpload},
	{op: "UploadPart", need: "s3:PutObject", method: "PUT", on: onObject, sub: "uploadId", body: dataBody, serve: uploadPart},
	{op: "UploadPartCopy", need: "s3:PutObject", method: "PUT", on: onObject, sub: "uploadId", copy: true, serve: uploadPartCopy},
	{op: "ListParts", need: "s3:ListMultipartUploadParts", method: "GET", on: onObject, sub: "uploadId", serve: listParts},
	{op: "CompleteMultipartUpload", need: "s3:PutObject", method: "POST", on: onObject, sub: "uploadId", body: completeBody, serve: completeUpload},
	{op: "AbortMultipartUpload", need: "s3:AbortMultipartUpload", method: "DELETE", on: onObject, sub: "uploadId", serve: abortUpload},
}

// subresources are the query parameters that change what a request means. One
// of them without a line in the table is 501, never the plain operation.
var subresources = nameSet(`accelerate acl analytics append attributes annotation annotations cors delete encryption intelligent-tiering
	inventory legal-hold lifecycle list-type location logging metadataConfiguration metadataInventoryTable
	metadataJournalTable metadataTable metrics notification object-lock ownershipControls policy policyStatus
	publicAccessBlock renameObject replication requestPayment restore retention select session tagging torrent
	uploadId uploads versioning versions website x-ashlar-reads x-ashlar-trace`)

// parameters are the query parameters that only shape an operation.
var parameters = nameSet(`bucket-region continuation-token delimiter encoding-type fetch-owner key-marker marker max-buckets
	max-keys max-parts max-uploads part-number-marker partNumber prefix response-cache-control
	response-content-disposition response-content-encoding response-content-language response-content-type
	response-expires start-after upload-id-marker version-id-marker versionId`)

// steers reports whether a parameter has to be signed, by Signature Version 2 too: whether
// it picks the operation, or asks for more than the operation has. The two forms of a
// listing need the same right and show the same keys, so list-type does not.
func steers(name string) bool {
	return subresources[name] && name != "list-type" || name == "metadata"
}

func nameSet(names string) map[string]bool {
	m := map[string]bool{}
	for _, n := range strings.Fields(names) {
		m[n] = true
	}
	return m
}

type routeKey struct {
	method string
	on     target
	sub    string
	copy   bool
}

type routeTable struct {
	byKey   map[routeKey]*route
	methods map[routeKey]bool // method and target only
}

func newRouteTable(list []route) routeTable {
	t := routeTable{map[routeKey]*route{}, map[routeKey]bool{}}
	for i := range list {
		r := &list[i]
		key := routeKey{r.method, r.on, r.sub, r.copy}
		if r.need == "" {
			panic("s3gw: route " + r.op + " says no action: nobody could be authorised")
		}
		if t.byKey[key] != nil || r.sub != "" && !subresources[r.sub] {
			panic("s3gw: route " + r.op + " is ambiguous or its subresource unknown")
		}
		t.byKey[key] = r
		t.methods[routeKey{method: r.method, on: r.on}] = true
	}
	return t
}

// find returns the one route of a call, or the reason why there is none.
func (t *routeTable) find(c *call) (*route, error) {
	method := c.r.Method
	key := routeKey{method: method, on: onService}
	switch {
	case c.key != "":
		key.on = onObject
	case c.bucket != "":
		key.on = onBucket
	}
	var err error
	if key.sub, err = subresourceOf(c.r.Method, c.query); err != nil {
		return nil, err
	}
	if err := refuseStrayParameters(method, key.sub, c.query); err != nil {
		return nil, err
	}
	_, copying := c.r.Header["X-Amz-Copy-Source"]
	key.copy = copying && method == "PUT" && key.on == onObject
	if r := t.byKey[key]; r != nil {
		return r, nil
	}
	if key.sub == "versions" && method == "GET" && key.on == onObject {
		return nil, s3.E(s3.InvalidRequest, "There is no such thing as the ?versions sub-resource for a key")
	}
	if key.sub != "" && (method == "GET" || method == "HEAD" || method == "PUT" || method == "POST" || method == "DELETE") {
		return nil, s3.E(s3.NotImplemented, "").With("Resource-Type", key.sub)
	}
	if t.methods[routeKey{method: method, on: key.on}] {
		return nil, s3.E(s3.NotImplemented, "") // for example POST of a form
	}
	return nil, s3.E(s3.MethodNotAllowed, "").With("Method", method)
}

// refuseStrayParameters keeps a part whose uploadId was lost, or a write of a
// version, from becoming a plain PUT.
func refuseStrayParameters(method, sub string, q s3.Query) error {
	stray := ""
	switch {
	case method == "PUT" && sub == "" && q.Has("partNumber"):
		stray = "partNumber"
	case (method == "PUT" || method == "POST") && q.Has("versionId") && sub != "tagging" && sub != "acl" && sub != "retention" && sub != "legal-hold":
		stray = "versionId"
	default:
		return nil
	}
	if stray == "partNumber" {
		return invalidArgument(stray, q.Value(stray), "This operation does not accept partNumber without uploadId")
	}
	return invalidArgument(stray, q.Value(stray), "This operation does not accept a "+stray+".")
}

// subresourceOf returns the one subresource of a query. Parameters that nobody
// knows are ignored only where that cannot turn one operation into another.
func subresourceOf(method string, q s3.Query) (string, error) {
	sub := ""
	for i := range q {
		p := &q[i]
		switch {
		case subresources[p.Name]:
			if sub != "" && sub != p.Name {
				return "", s3.E(s3.InvalidArgument, "Conflicting query string parameters: "+sub+", "+p.Name).
					With("ArgumentName", "ResourceType").With("ArgumentValue", sub)
			}
			sub = p.Name
		case parameters[p.Name], isExtension(p.Name):
		case method != "GET" && method != "HEAD", p.Value == "":
			return "", s3.E(s3.NotImplemented, "The query parameter "+strings.ToValidUTF8(p.Name, "\uFFFD")+" is not implemented.")
		}
	}
	return sub, nil
}

// isExtension reports whether a parameter is of the x- family, which AWS lets
// clients add for their logs; x-id and X-Amz-* are among them.
func isExtension(name string) bool {
	return len(name) > 2 && strings.EqualFold(name[:2], "x-")
}

// steering are headers that would change what is stored or who may read it.
// They are refused rather than ignored until they do what they say.
var steering = []struct {
	name    string
	allowed []string
	code    s3.Code
}{
	{"X-Amz-Server-Side-Encryption-Context", nil, s3.NotImplemented},
	{"X-Amz-Write-Offset-Bytes", nil, s3.NotImplemented},
	{"X-Amz-Rename-Source", nil, s3.NotImplemented},
}

// repeatable are the families of x-amz-* headers of which every value counts.
var repeatable = []string{"X-Amz-Meta-", "X-Amz-Grant-", "X-Amz-Object-Attributes"}

func mayRepeat(header string) bool {
	return !strings.HasPrefix(header, "X-Amz-") || slices.ContainsFunc(repeatable, func(p string) bool { return strings.HasPrefix(header, p) })
}

// checkSteering refuses what would be silently ignored otherwise: also the second
// value of a header that has one, lest a policy judges by another than a handler.
func (c *call) checkSteering() error {
	for name, values := range c.r.Header {
		if len(values) > 1 && !mayRepeat(name) {
			return invalidArgument(strings.ToLower(name), strings.Join(values, ","), "The header "+strings.ToLower(name)+" must not be repeated.")
		}
	}
	for i := range steering {
		st := &steering[i]
		value, ok := c.r.Header[st.name]
		if !ok || len(value) == 1 && contains(st.allowed, value[0]) {
			continue
		}
		return s3.E(st.code, "The header "+strings.ToLower(st.name)+" is not implemented.")
	}
	return nil
}

// checkExpectedOwner refuses a request that expects a bucket, or the source of a
// copy, to be another account's.
func (c *call) checkExpectedOwner() error {
	for name, bucket := range map[string]s3.Bucket{"X-Amz-Expected-Bucket-Owner": c.bucket, "X-Amz-Source-Expected-Bucket-Owner": ""} {
		expected := c.header(name)
		if expected == "" {
			continue
		}
		if bucket == "" {
			var err error
			if bucket, _, _, err = c.copySource(); err != nil {
				continue // not a copy
			}
		}
		a, err := c.access(bucket)
		if err != nil {
			return withBucket(err, bucket)
		}
		if expected != c.s.accountID(a.Owner) && expected != a.Owner {
			return s3.E(s3.AccessDenied, "")
		}
	}
	return nil
}

func contains(list []string, s string) bool {
	for _, v := range list {
		if v == s {
			return true
		}
	}
	return false
}
