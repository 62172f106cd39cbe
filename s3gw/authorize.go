package s3gw

import (
	"errors"
	"strings"

	"ashlar/s3gw/iam"
	"ashlar/s3gw/policy"
	"ashlar/s3gw/s3"
	"ashlar/s3gw/store"
)

// Accounts says who owns what. Credentials that also are Accounts are asked.
// Implementations answer from memory.
type Accounts interface {
	// Account and AccountByEmail return nil if there is none.
	Account(canonical string) *iam.Account
	AccountByEmail(address string) *iam.Account
}

// right is one action on one resource: what authorize decides about.
type right struct {
	action string
	bucket s3.Bucket // empty for the service
	key    s3.Key    // empty for the bucket itself
	// version is what the request names, empty for the current one.
	version string
	// with is the action that this one comes on top of, for example PutObject of a
	// PutObjectTagging that is asked for in a header: an ACL that allows the one
	// allows the other.
	with string
	// arn is the resource of a right that is not about a bucket, and values are condition
	// keys that only such a right has.
	arn    string
	values map[string][]string
	// probed is the key whose presence is asked for, of a ListBucket that stands for that.
	probed s3.Key
}

const s3ARN = "arn:aws:s3:::"

func (r *right) resource() string {
	switch {
	case r.arn != "":
		return r.arn
	case r.bucket == "":
		return s3ARN + "*"
	case r.key == "":
		return s3ARN + string(r.bucket)
	}
	return s3ARN + string(r.bucket) + "/" + string(r.key)
}

// versioned are the actions that are another one where a version is named.
var versioned = map[string]string{
	"s3:GetObject": "s3:GetObjectVersion", "s3:GetObjectAcl": "s3:GetObjectVersionAcl", "s3:PutObjectAcl": "s3:PutObjectVersionAcl",
	"s3:GetObjectTagging": "s3:GetObjectVersionTagging", "s3:PutObjectTagging": "s3:PutObjectVersionTagging",
	"s3:DeleteObjectTagging": "s3:DeleteObjectVersionTagging", "s3:GetObjectAttributes": "s3:GetObjectVersionAttributes",
	"s3:DeleteObject": "s3:DeleteObjectVersion",
}

func actionOn(action, version string) string {
	if v := versioned[action]; v != "" && version != "" {
		return v
	}
	return action
}

// identifySender takes whom the key of a verified request acts for. Where nobody knows
// accounts, each key is the root of its own.
func (c *call) identifySender() error {
	if c.auth.AccessKey == "" {
		c.who = iam.Unknown
		c.auth.Account = iam.Nobody.Canonical
		return nil
	}
	who, known := c.auth.Holder.(*iam.Identity)
	switch {
	case known && who != nil:
		c.who = who
	case c.s.accounts != nil:
		return s3.E(s3.InvalidAccessKeyID, "").With("AWSAccessKeyId", c.auth.AccessKey)
	default:
		c.who = iam.RootOf(&iam.Account{ID: c.auth.Account, Canonical: c.auth.Account, Name: c.auth.Account})
	}
	return nil
}

// objectKey is the key that a request is about, also where a form names it.
func (c *call) objectKey() s3.Key {
	if c.form != nil {
		return c.form.key
	}
	return c.key
}

// rights lists all that the request asks for.
func (c *call) rights() ([]right, error) {
	first := right{action: c.route.need, bucket: c.bucket, key: c.objectKey()}
	if first.key != "" {
		first.version = c.query.Value("versionId")
		first.action = actionOn(first.action, first.version)
	}
	list := []right{first}
	also := func(action string) {
		list = append(list, right{action: action, bucket: first.bucket, key: first.key, version: first.version, with: first.action})
	}
	switch c.route.op {
	case "GetObjectAttributes":
		list = append(list, right{action: actionOn("s3:GetObject", first.version), bucket: first.bucket, key: first.key, version: first.version})
	case "CopyObject", "UploadPartCopy":
		if c.route.sub == "uploadId" {
			if _, _, err := c.part(); err != nil { // before anything is said of the source
				return nil, err
			}
		}
		bucket, key, version, err := c.copySource()
		if err != nil {
			return nil, err
		}
		list = append(list, right{action: actionOn("s3:GetObject", version), bucket: bucket, key: key, version: version})
	case "CreateBucket":
		if c.header("X-Amz-Object-Ownership") != "" {
			also("s3:PutBucketOwnershipControls")
		}
		if c.hasACL() && !c.passesOverACL(nil) {
			also("s3:PutBucketAcl")
		}
		if strings.EqualFold(c.header("X-Amz-Bucket-Object-Lock-Enabled"), "true") {
			also("s3:PutBucketObjectLockConfiguration")
			also("s3:PutBucketVersioning")
		}
	}
	switch c.route.op {
	case "PutObject", "PostObject", "CopyObject", "CreateMultipartUpload":
		if !c.s.rgw && (c.header("X-Amz-Tagging") != "" || c.form != nil && c.form.fields["tagging"] != "") {
			also("s3:PutObjectTagging")
		}
		if c.hasACL() {
			a, err := c.access(c.bucket)
			if err != nil {
				return nil, withBucket(err, c.bucket)
			}
			if !c.passesOverACL(a) {
				also("s3:PutObjectAcl")
			}
		}
		if c.header("X-Amz-Object-Lock-Mode") != "" || c.header("X-Amz-Object-Lock-Retain-Until-Date") != "" {
			also("s3:PutObjectRetention")
		}
		if c.header("X-Amz-Object-Lock-Legal-Hold") != "" {
			also("s3:PutObjectLegalHold")
		}
	}
	return list, nil
}

func (c *call) hasACL() bool { return c.header("X-Amz-Acl") != "" || s3.HasGrants(c.r.Header) }

// authorize decides whether the request may be served: no handler runs before
// it said yes to every right. The keys of a DeleteObjects are in its body, so its
// handler asks for each of them; there is nothing else that it does.
func (c *call) authorize() error {
	if c.bucket != "" {
		if _, err := c.access(c.bucket); err != nil && (c.route.op != "CreateBucket" || s3.Classify(err).Code != s3.NoSuchBucket) {
			return withBucket(err, c.bucket)
		}
	}
	if c.route.op == "DeleteObjects" {
		return nil
	}
	rights, err := c.rights()
	if err != nil {
		return err
	}
	for i := range rights {
		if err := c.demand(&rights[i]); err != nil {
			return c.orAbsent(&rights[i], err)
		}
	}
	return c.demandTags()
}

// demandTags asks for the rights to the tags that a copy takes along; that there
// are some is known only when the source may be read.
func (c *call) demandTags() error {
	if c.route.op != "CopyObject" || c.s.rgw {
		return nil
	}
	replace, err := c.directive("X-Amz-Tagging-Directive")
	if err != nil || replace {
		return err // tags in the header are among the rights
	}
	bucket, key, version, err := c.copySource()
	if err != nil {
		return err
	}
	source := right{action: actionOn("s3:GetObjectTagging", version), bucket: bucket, key: key, version: version}
	if o, err := c.subject(&source); err != nil || o == nil || len(o.Tags) == 0 {
		return err
	}
	if err := c.demand(&source); err != nil {
		return err
	}
	return c.demand(&right{action: "s3:PutObjectTagging", bucket: c.bucket, key: c.key, with: "s3:PutObject"})
}

// orAbsent answers a reader that was refused: one who may list the bucket learns
// that there is nothing to read.
func (c *call) orAbsent(r *right, refused error) error {
	if !c.readsKey() || s3.Classify(refused).Code != s3.AccessDenied || !c.mayProbe(r.key) {
		return refused
	}
	_, err := c.s.backend.HeadObject(c.ctx, string(r.bucket), string(r.key), r.version)
	if errors.Is(err, store.ErrNoSuchKey) || errors.Is(err, store.ErrNoSuchVersion) || errors.Is(err, store.ErrDeleteMarker) {
		return c.readError(err)
	}
	return refused
}

// readsKey reports whether the request reads something of one object.
func (c *call) readsKey() bool {
	return c.route != nil && c.route.on == onObject && (c.route.method == "GET" || c.route.method == "HEAD")
}

// mayProbe reports whether the sender may know whether a key is there: whether a
// listing with the key as its prefix would be allowed.
func (c *call) mayProbe(key s3.Key) bool {
	ok, err := c.judge(&right{action: "s3:ListBucket", bucket: c.bucket, probed: key})
	return ok && err == nil
}

// demand returns AccessDenied unless the sender has the right.
func (c *call) demand(r *right) error {
	ok, err := c.judge(r)
	switch {
	case err != nil:
		return err
	case !ok:
		return s3.E(s3.AccessDenied, "")
	}
	return nil
}

// judge combines what the sender's own policies, the bucket's policy and the ACLs
// say, by AWS's rules:
//
//	a denial anywhere            no
//	the bucket's own account     its own policies or the bucket's policy allow
//	another account              its own policies and (bucket's policy or ACL) allow
//	nobody                       the bucket's policy or an ACL allows everybody
//
// What is the gateway's own (ofTheGateway) only the account of its operator may ask.
//
// A session never gets more than its own policies and its role's boundary allow,
// whoever gives it.
//
// An object of another account in a bucket where owners are not enforced is its
// writer's: only its ACL allows access to it.
func (c *call) judge(r *right) (bool, error) {
	var unknown error
	q := policy.Request{Principal: c.who.Principal(), Action: r.action, Resource: r.resource(), Values: c.conditions(r, &unknown)}
	own := c.who.Judge(&q)
	switch {
	case unknown != nil:
		return false, unknown
	case ofTheGateway[r.action] && (c.s.operator == "" || c.who.Account.Canonical != c.s.operator):
		return false, nil
	case r.bucket == "":
		return own == policy.Allow || c.s.rgw && c.who.Kind == iam.Anonymous && r.action == "s3:ListAllMyBuckets", nil
	}
	if c.route.op == "CreateBucket" { // there is none yet, or the handler says whose it is
		return own == policy.Allow, nil
	}
	a, err := c.access(r.bucket)
	if err != nil {
		return false, withBucket(err, r.bucket)
	}
	home := c.who.Kind != iam.Anonymous && c.who.Account.Canonical == a.Owner
	said := a.policy.Evaluate(&q)
	switch {
	case unknown != nil:
		return false, unknown
	case own == policy.Deny:
		return false, nil
	case said == policy.Deny:
		return home && c.who.Kind == iam.Root && policyAdministration[r.action], nil
	case a.block.Restrict && a.public && !home, said != policy.None && !c.who.Admits(&q):
		said = policy.None
	}
	if a.ownership != s3.OwnerEnforced && aboutObject[r.action] {
		o, err := c.subject(r)
		if err != nil {
			return false, err
		}
		if o != nil && o.Owner != a.Owner {
			return (own == policy.Allow || c.who.Kind == iam.Anonymous) && c.aclAllows(a, r, o), nil
		}
	}
	switch {
	case home:
		return own == policy.Allow || said == policy.Allow, nil
	case c.who.Kind != iam.Anonymous && own != policy.Allow:
		return false, nil
	case said == policy.Allow, said == policy.Delegated && c.who.Kind != iam.Anonymous:
		return true, nil
	case a.ownership == s3.OwnerEnforced:
		return false, nil
	}
	var o *store.Object
	if objectPermissions[r.action] != "" {
		if o, err = c.subject(r); err != nil {
			return false, err
		}
	}
	return c.aclAllows(a, r, o), nil
}

// ofTheGateway are the actions that show what all accounts do. The others' root keys
// cannot allow them.
var ofTheGateway = map[string]bool{"ashlar:TraceRequests": true}

// policyAdministration are the actions that nobody can take from the account of a
// bucket, lest a policy locks everybody out for ever.
var policyAdministration = map[string]bool{"s3:GetBucketPolicy": true, "s3:PutBucketPolicy": true, "s3:DeleteBucketPolicy": true}

// aboutObject are the actions that concern one version that exists and its owner.
var aboutObject = map[string]bool{
	"s3:GetObject": true, "s3:GetObjectVersion": true, "s3:GetObjectAcl": true, "s3:GetObjectVersionAcl": true, "s3:PutObjectAcl": true,
	"s3:PutObjectVersionAcl": true, "s3:GetObjectAttributes": true, "s3:GetObjectVersionAttributes": true,
}

// subject returns the object that a right is about, nil if there is none.
func (c *call) subject(r *right) (*store.Object, error) {
	if r.key == "" || r.with != "" {
		return nil, nil
	}
	memo := subjectOf{r.bucket, r.key, r.version}
	c.subjects.Lock()
	o, known := c.subjects.of[memo]
	c.subjects.Unlock()
	if known {
		return o, nil
	}
	found, err := c.s.backend.HeadObject(c.ctx, string(r.bucket), string(r.key), r.version)
	switch {
	case err == nil:
		o = &found
	case errors.Is(err, store.ErrNoSuchKey), errors.Is(err, store.ErrNoSuchVersion), errors.Is(err, store.ErrDeleteMarker):
	default:
		return nil, err
	}
	c.remember(memo, o)
	return o, nil
}

// remember keeps an object that rights are about, so that it is not asked for again;
// nil is of one that is not there.
func (c *call) remember(memo subjectOf, o *store.Object) {
	c.subjects.Lock()
	defer c.subjects.Unlock()
	if c.subjects.of == nil {
		c.subjects.of = map[subjectOf]*store.Object{}
	}
	c.subjects.of[memo] = o
}

// judged returns the object that the sender was allowed to read, nil if it was
// not looked at. What is done is done with that one: another may have come in its
// place.
func (c *call) judged(bucket s3.Bucket, key s3.Key, version string) *store.Object {
	c.subjects.Lock()
	defer c.subjects.Unlock()
	return c.subjects.of[subjectOf{bucket, key, version}]
}

type subjectOf struct {
	bucket  s3.Bucket
	key     s3.Key
	version string
}

// bucketPermissions and objectPermissions say which permission of an ACL allows
// an action; what is not there no ACL allows.
var (
	bucketPermissions = map[string]s3.Permission{
		"s3:ListBucket": s3.Read, "s3:ListBucketVersions": s3.Read, "s3:ListBucketMultipartUploads": s3.Read,
		"s3:PutObject": s3.Write, "s3:DeleteObject": s3.Write, "s3:AbortMultipartUpload": s3.Write, "s3:ListMultipartUploadParts": s3.Write,
		"s3:GetBucketAcl": s3.ReadACP, "s3:PutBucketAcl": s3.WriteACP,
	}
	objectPermissions = map[string]s3.Permission{
		"s3:GetObject": s3.Read, "s3:GetObjectVersion": s3.Read, "s3:GetObjectAttributes": s3.Read, "s3:GetObjectVersionAttributes": s3.Read,
		"s3:GetObjectAcl": s3.ReadACP, "s3:GetObjectVersionAcl": s3.ReadACP, "s3:PutObjectAcl": s3.WriteACP, "s3:PutObjectVersionAcl": s3.WriteACP,
	}
)

// aclAllows judges by the ACL of the bucket or of the object.
func (c *call) aclAllows(a *access, r *right, o *store.Object) bool {
	who := c.who.Account.Canonical
	if c.who.Kind == iam.Anonymous {
		who = ""
	}
	action := r.action
	if r.with != "" && bucketPermissions[r.with] != "" {
		action = r.with
	}
	if p := bucketPermissions[action]; p != "" {
		return a.acl.Allows(who, p, a.block.IgnoreACLs)
	}
	p := objectPermissions[action]
	if p == "" || o == nil {
		return false
	}
	acl := s3.ParseACL(o.ACL, o.Owner)
	if who != "" && who == o.Owner && (p == s3.ReadACP || p == s3.WriteACP) {
		return true // an owner cannot lock itself out
	}
	return acl.Allows(who, p, a.block.IgnoreACLs)
}

// veil keeps from those who may not list a bucket whether a key is there.
func (c *call) veil(err error) error {
	if err == nil || !c.readsKey() {
		return err
	}
	e := s3.Classify(err)
	if (e.Code == s3.NoSuchKey || e.Code == s3.NoSuchVersion) && !c.mayProbe(c.key) {
		return &s3.Error{Code: s3.AccessDenied, Err: err}
	}
	return err
}
