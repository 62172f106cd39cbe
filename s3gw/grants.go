package s3gw

import (
	"errors"
	"net/http"

	"ashlar/s3gw/iam"
	"ashlar/s3gw/policy"
	"ashlar/s3gw/s3"
)

// writes is who will own what a request writes, and who may read it.
type writes struct {
	owner string
	acl   []byte
}

// ownedBy decides whose a new object is and which grants it has, from the mode of
// the bucket and the request's headers.
func (c *call) ownedBy() (w writes, err error) {
	a, err := c.access(c.bucket)
	if err != nil {
		return w, withBucket(err, c.bucket)
	}
	canned := c.header("X-Amz-Acl")
	switch {
	case c.passesOverACL(a):
		return writes{owner: c.writer(a)}, nil
	case a.ownership == s3.OwnerEnforced:
		acl, given, err := c.headerACL(a.Owner, a.Owner, false)
		switch {
		case err != nil:
			return w, err
		case canned == "private" && a.unasked:
			// rclone before 1.61 and s3cmd send it with every object, and it is what
			// the object gets. AWS refuses it in buckets that were made since 2023.
		case given && (canned == "private" || acl.Text(a.Owner) != nil): // only the bucket owner's full control may be said
			return w, s3.E(s3.AccessControlListNotSupported, "")
		}
		return writes{owner: c.writer(a)}, nil
	}
	w.owner = c.writer(a)
	if a.ownership == s3.OwnerPreferred && canned == "bucket-owner-full-control" {
		w.owner = a.Owner
	}
	acl, given, err := c.headerACL(w.owner, a.Owner, false)
	if err != nil || !given {
		return w, err
	}
	if a.block.BlockACLs && acl.Public() {
		return w, s3.E(s3.AccessDenied, "A public ACL is blocked by the public access block of the bucket.")
	}
	w.acl = acl.Text(w.owner)
	return w, nil
}

// passesOverACL reports whether the ACL of a write does nothing: with MinIO's answers,
// where nobody chose who owns the objects of the bucket. Nil is of one that is to be made.
func (c *call) passesOverACL(a *access) bool {
	if a == nil {
		return c.s.minio && c.s.ownership == s3.OwnerEnforced && c.header("X-Amz-Object-Ownership") == ""
	}
	return c.s.minio && a.unasked
}

// writer is whose something is that the sender writes into a bucket.
func (c *call) writer(a *access) string {
	if a.ownership == s3.OwnerEnforced {
		return a.Owner
	}
	return c.who.Account.Canonical
}

// headerACL reads the ACL that a request gives in its headers.
func (c *call) headerACL(owner, bucketOwner string, ofBucket bool) (acl s3.ACL, given bool, err error) {
	canned := c.header("X-Amz-Acl")
	grants := s3.HasGrants(c.r.Header)
	switch {
	case canned != "" && grants:
		return nil, true, s3.E(s3.InvalidRequest, "Specifying both Canned ACLs and Header Grants is not allowed.")
	case canned != "":
		acl, err = s3.Canned(canned, owner, bucketOwner, ofBucket)
	case grants:
		acl, err = s3.GrantsOf(c.r.Header, finder{c.s})
	}
	return acl, canned != "" || grants, err
}

// putACL reads the ACL of a request that is about nothing else.
func (c *call) putACL(a *access, owner string, ofBucket bool) (s3.ACL, error) {
	doc, err := c.document()
	if err != nil {
		return nil, err
	}
	acl, given, err := c.headerACL(owner, a.Owner, ofBucket)
	switch {
	case a.unasked && !given && len(doc) > 0:
		// s3cmd puts the ACL of the source behind every copy; see ownedBy.
		if acl, err = s3.ParseACLDocument(doc, owner, finder{c.s}); err != nil || acl.Text(owner) != nil {
			return nil, s3.E(s3.AccessControlListNotSupported, "")
		}
		return acl, nil
	case a.ownership == s3.OwnerEnforced && (given || len(doc) > 0):
		return nil, s3.E(s3.AccessControlListNotSupported, "")
	case given && len(doc) > 0:
		return nil, s3.E(s3.UnexpectedContent, "").OnRGW(s3.InvalidRequest)
	case err != nil:
		return nil, err
	case !given && len(doc) == 0:
		return nil, s3.E(s3.MissingSecurityHeader, "")
	case !given:
		if acl, err = s3.ParseACLDocument(doc, owner, finder{c.s}); err != nil {
			return nil, err
		}
	}
	if a.block.BlockACLs && acl.Public() {
		return nil, s3.E(s3.AccessDenied, "A public ACL is blocked by the public access block of the bucket.")
	}
	return acl, nil
}

func getBucketACL(c *call) error {
	a, err := c.access(c.bucket)
	if err != nil {
		return withBucket(err, c.bucket)
	}
	return c.xml(http.StatusOK, func(w *s3.Writer) { w.AccessControlPolicy(a.Owner, a.acl) })
}

func putBucketACL(c *call) error {
	err := c.changeSetting(settingACL, func(a *access) ([]byte, error) {
		acl, err := c.putACL(a, a.Owner, true)
		return acl.Text(a.Owner), err
	})
	if err != nil {
		return err
	}
	return c.empty(http.StatusOK)
}

func getObjectACL(c *call) error {
	o, err := c.headObject()
	if err != nil {
		return err
	}
	a, err := c.access(c.bucket)
	if err != nil {
		return withBucket(err, c.bucket)
	}
	c.versionHeader(o.Version)
	owner, acl := o.Owner, s3.ParseACL(o.ACL, o.Owner)
	if a.ownership == s3.OwnerEnforced {
		owner, acl = a.Owner, s3.ParseACL(nil, a.Owner)
	}
	return c.xml(http.StatusOK, func(w *s3.Writer) { w.AccessControlPolicy(owner, acl) })
}

func putObjectACL(c *call) error {
	a, err := c.access(c.bucket)
	if err != nil {
		return withBucket(err, c.bucket)
	}
	o, err := c.headObject()
	if err != nil {
		return err
	}
	acl, err := c.putACL(a, o.Owner, false)
	if err != nil {
		return err
	}
	version, err := c.version()
	if err != nil {
		return err
	}
	if version == "" {
		version = o.Version // the one whose owner was judged
	}
	if version, err = c.s.backend.SetACL(c.ctx, string(c.bucket), string(c.key), version, acl.Text(o.Owner)); err != nil {
		return c.readError(err)
	}
	c.versionHeader(version)
	return c.empty(http.StatusOK)
}

func getOwnershipControls(c *call) error {
	a, err := c.access(c.bucket)
	if err != nil {
		return withBucket(err, c.bucket)
	}
	if !a.controls {
		return s3.E(s3.OwnershipControlsNotFoundError, "").With("BucketName", string(c.bucket))
	}
	return c.xml(http.StatusOK, func(w *s3.Writer) {
		w.Begin("OwnershipControls")
		w.Open("Rule")
		w.Raw("ObjectOwnership", a.ownership)
		w.Close("Rule")
		w.Close("OwnershipControls")
	})
}

func putOwnershipControls(c *call) error {
	doc, err := c.document()
	if err != nil {
		return err
	}
	mode, err := s3.ParseOwnershipControls(doc)
	if err != nil {
		return err
	}
	err = c.changeSetting(settingOwnership, func(a *access) ([]byte, error) {
		if mode == s3.OwnerEnforced && a.acl.Text(a.Owner) != nil {
			return nil, s3.E(s3.InvalidBucketACLWithObjectOwnership, "Bucket cannot have ACLs set with ObjectOwnership's BucketOwnerEnforced setting")
		}
		return []byte(mode), nil
	})
	if err != nil {
		return err
	}
	return c.empty(http.StatusOK)
}

func deleteOwnershipControls(c *call) error {
	if err := c.s.backend.PutSetting(c.ctx, string(c.bucket), settingOwnership, []byte(noOwnership)); err != nil {
		return withBucket(err, c.bucket)
	}
	return c.empty(http.StatusNoContent)
}

// newBucketSettings are ownership and ACL of a bucket that is to be made.
func (c *call) newBucketSettings() (map[string][]byte, error) {
	mode := c.header("X-Amz-Object-Ownership")
	asked := mode != ""
	if asked {
		if err := s3.CheckOwnership(mode); err != nil {
			return nil, err
		}
	} else if mode = c.s.ownership; mode == s3.ObjectWriter {
		mode = noOwnership
	}
	owner := c.who.Account.Canonical
	acl, given, err := c.headerACL(owner, owner, true)
	if err != nil {
		return nil, err
	}
	given = given && !c.passesOverACL(nil)
	settings := map[string][]byte{}
	if asked || mode != s3.OwnerEnforced {
		settings[settingOwnership] = []byte(mode)
	}
	if text := acl.Text(owner); given && text != nil {
		if mode == s3.OwnerEnforced {
			return nil, s3.E(s3.InvalidBucketACLWithObjectOwnership, "")
		}
		settings[settingACL] = text
	}
	return settings, nil
}

func getBucketPolicy(c *call) error {
	doc, err := c.setting(settingPolicy, s3.NoSuchBucketPolicy)
	if err != nil {
		return err
	}
	c.sendDocument(http.StatusOK, "application/json", doc)
	return nil
}

func putBucketPolicy(c *call) error {
	doc, err := c.document()
	if err != nil {
		return err
	}
	p, err := policy.Parse(doc, policy.Bucket, string(c.bucket))
	switch {
	case errors.Is(err, policy.ErrTooLarge):
		return s3.E(s3.MalformedPolicy, "Policies must not exceed 20 KB.")
	case err != nil:
		return s3.E(s3.MalformedPolicy, err.Error())
	case p.AllowsAllBut():
		return s3.E(s3.MalformedPolicy, "NotPrincipal must stand with the effect Deny.")
	}
	err = c.changeSetting(settingPolicy, func(a *access) ([]byte, error) {
		switch {
		case a.block.BlockPolicy && p.Public():
			return nil, s3.E(s3.AccessDenied, "A public policy is blocked by the public access block of the bucket.")
		case c.header("X-Amz-Confirm-Remove-Self-Bucket-Access") != "true" && c.locksOut(p, a):
			return nil, s3.E(s3.AccessDenied, "The policy would keep you from changing it again; confirm with x-amz-confirm-remove-self-bucket-access.")
		}
		return doc, nil
	})
	if err != nil {
		return err
	}
	return c.empty(http.StatusNoContent)
}

// locksOut reports whether a new policy keeps its own author from changing it.
func (c *call) locksOut(p *policy.Policy, a *access) bool {
	if c.who.Kind == iam.Root && c.who.Account.Canonical == a.Owner {
		return false
	}
	r := right{action: "s3:PutBucketPolicy", bucket: c.bucket}
	var unknown error
	q := policy.Request{Principal: c.who.Principal(), Action: r.action, Resource: r.resource(), Values: c.conditions(&r, &unknown)}
	return p.Evaluate(&q) == policy.Deny || unknown != nil
}

func getBucketPolicyStatus(c *call) error {
	a, err := c.access(c.bucket)
	if err != nil {
		return withBucket(err, c.bucket)
	}
	if a.policy == nil && !c.s.rgw {
		return s3.E(s3.NoSuchBucketPolicy, "").With("BucketName", string(c.bucket))
	}
	public := a.public || c.s.rgw && a.acl.Public()
	return c.xml(http.StatusOK, func(w *s3.Writer) {
		w.Begin("PolicyStatus")
		w.Bool("IsPublic", public)
		w.Close("PolicyStatus")
	})
}
