package s3gw

import (
	"crypto/tls"
	"math"
	"net"
	"strconv"
	"strings"
	"time"

	"ashlar/s3gw/iam"
	"ashlar/s3gw/policy"
	"ashlar/s3gw/s3"
	"ashlar/s3gw/store"
)

// headerKeys are condition keys that are headers of the request.
var headerKeys = map[string]string{
	"s3:x-amz-acl": "X-Amz-Acl", "s3:x-amz-grant-read": "X-Amz-Grant-Read", "s3:x-amz-grant-write": "X-Amz-Grant-Write",
	"s3:x-amz-grant-read-acp": "X-Amz-Grant-Read-Acp", "s3:x-amz-grant-write-acp": "X-Amz-Grant-Write-Acp",
	"s3:x-amz-grant-full-control": "X-Amz-Grant-Full-Control", "s3:x-amz-metadata-directive": "X-Amz-Metadata-Directive",
	"s3:x-amz-server-side-encryption":                    "X-Amz-Server-Side-Encryption",
	"s3:x-amz-server-side-encryption-aws-kms-key-id":     "X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id",
	"s3:x-amz-server-side-encryption-customer-algorithm": "X-Amz-Server-Side-Encryption-Customer-Algorithm",
	"s3:x-amz-storage-class":                             "X-Amz-Storage-Class", "s3:x-amz-website-redirect-location": "X-Amz-Website-Redirect-Location",
	"s3:x-amz-object-ownership": "X-Amz-Object-Ownership", "s3:x-amz-content-sha256": "X-Amz-Content-Sha256",
	"s3:if-match": "If-Match", "s3:if-none-match": "If-None-Match",
	"aws:useragent": "User-Agent", "aws:referer": "Referer",
}

// queryKeys are condition keys that are parameters of the query.
var queryKeys = map[string]string{"s3:prefix": "prefix", "s3:delimiter": "delimiter", "s3:max-keys": "max-keys"}

// conditions returns the values of condition keys for one right. They are looked
// up only when a policy asks for them. What could not be looked up is in failed:
// then no policy has decided anything.
func (c *call) conditions(r *right, failed *error) func(key string) []string {
	return func(key string) []string {
		if v, has := r.values[key]; has {
			return v
		}
		if name := headerKeys[key]; name != "" {
			if v := c.r.Header[name]; len(v) > 0 {
				return []string{strings.Join(v, ",")}
			}
			return nil
		}
		if key == "s3:prefix" && r.probed != "" {
			return []string{string(r.probed)}
		}
		if name := queryKeys[key]; name != "" {
			if v, given := c.query.Get(name); given {
				return []string{v}
			}
			return nil
		}
		if v := c.senderKey(key); v != nil {
			return v
		}
		v, err := c.resourceKey(key, r)
		if err != nil {
			*failed = err
		}
		return v
	}
}

func only(v string) []string {
	if v == "" {
		return nil
	}
	return []string{v}
}

// senderKey answers for what is known of the sender and of the connection.
func (c *call) senderKey(key string) []string {
	signed := c.who.Kind != iam.Anonymous
	switch now := c.s.now().UTC(); key {
	case "aws:currenttime":
		return only(now.Format(time.RFC3339))
	case "aws:epochtime":
		return only(strconv.FormatInt(now.Unix(), 10))
	case "aws:sourceip":
		host, _, err := net.SplitHostPort(c.r.RemoteAddr)
		if err != nil {
			host = c.r.RemoteAddr
		}
		return only(host)
	case "aws:securetransport":
		return only(strconv.FormatBool(c.r.TLS != nil))
	case "aws:principaltype":
		return only(string(c.who.Kind))
	case "aws:principalarn":
		if c.who.Role != "" {
			return only(c.who.Role)
		}
		return only(c.who.ARN)
	case "aws:principalaccount":
		return only(c.who.Account.ID)
	case "aws:username":
		return only(c.who.Name)
	case "aws:userid":
		if !signed {
			return only(policy.AnonymousID)
		}
		return only(c.who.ID)
	case "aws:tokenissuetime":
		if !c.who.Issued.IsZero() {
			return only(c.who.Issued.UTC().Format(time.RFC3339))
		}
	case "aws:federatedprovider":
		return only(c.who.Provider)
	case "aws:principalisawsservice", "aws:viaawsservice":
		return only("false")
	case "aws:requestedregion":
		return only(c.s.region)
	case "s3:tlsversion":
		if c.r.TLS != nil {
			return only(map[uint16]string{tls.VersionTLS12: "1.2", tls.VersionTLS13: "1.3"}[c.r.TLS.Version])
		}
	case "s3:signatureversion":
		switch {
		case !signed:
		case c.auth.Version2:
			return only("AWS")
		default:
			return only("AWS4-HMAC-SHA256")
		}
	case "s3:authtype":
		switch {
		case !signed:
		case c.form != nil:
			return only("POST")
		case c.auth.Presigned:
			return only("REST-QUERY-STRING")
		default:
			return only("REST-HEADER")
		}
	case "s3:signatureage":
		switch {
		case !signed:
		case !c.auth.Time.IsZero():
			return only(strconv.FormatInt(max(0, now.Sub(c.auth.Time).Milliseconds()), 10))
		case c.form != nil:
			return only("0")
		default: // presigned with version 2, nobody knows when: it is older than anything that a policy allows
			return only(strconv.FormatInt(math.MaxInt64, 10))
		}
	}
	return nil
}

// resourceKey answers for what is known of the resource and of what the request
// wants to do with it.
func (c *call) resourceKey(key string, r *right) ([]string, error) {
	switch key {
	case "s3:versionid":
		return only(r.version), nil
	case "s3:x-amz-copy-source":
		bucket, key, _, err := c.copySource()
		if err != nil {
			return nil, nil // no copy, or rights refuses it
		}
		return only(string(bucket) + "/" + string(key)), nil
	case "aws:resourceaccount", "s3:resourceaccount":
		if r.bucket == "" {
			return nil, nil
		}
		a, err := c.access(r.bucket)
		if err != nil {
			if s3.Classify(err).Code == s3.NoSuchBucket {
				err = nil
			}
			return nil, err
		}
		return only(c.s.accountID(a.Owner)), nil
	case "s3:requestobjecttagkeys":
		var keys []string
		for k := range c.requestTags() {
			keys = append(keys, k)
		}
		return keys, nil
	case "s3:locationconstraint":
		return c.requestedLocation(), nil
	case "s3:object-lock-legal-hold":
		return only(c.requestedHold()), nil
	case "s3:object-lock-mode", "s3:object-lock-retain-until-date", "s3:object-lock-remaining-retention-days":
		return c.requestedRetention(key), nil
	}
	if name, ok := strings.CutPrefix(key, "s3:requestobjecttag/"); ok {
		return tagNamed(c.requestTags(), name), nil
	}
	if name, ok := strings.CutPrefix(key, "s3:existingobjecttag/"); ok {
		existing := *r
		existing.with = ""
		o, err := c.subject(&existing)
		if err != nil || o == nil {
			return nil, err
		}
		return tagNamed(o.Tags, name), nil
	}
	return nil, nil
}

// tagNamed finds a tag; policies write its name in any case.
func tagNamed(tags map[string]string, low string) (values []string) {
	for k, v := range tags {
		if strings.ToLower(k) == low {
			values = append(values, v)
		}
	}
	return values
}

// requestTags are the tags that the request gives to an object: in a header, in a
// field of a form or in the document of a PutObjectTagging.
func (c *call) requestTags() map[string]string {
	var tags map[string]string
	var err error
	switch {
	case c.form != nil:
		if doc := c.form.fields["tagging"]; doc != "" {
			tags, err = s3.ParseTagging([]byte(doc), s3.ObjectTagsMax)
		}
	case c.route.op == "PutObjectTagging":
		doc, failed := c.document()
		if err = failed; err == nil {
			tags, err = s3.ParseTagging(doc, s3.ObjectTagsMax)
		}
	default:
		tags, err = s3.TagsOf(c.r.Header)
	}
	if err != nil {
		return nil // the handler refuses it
	}
	return tags
}

// requestedLocation is the location in the document of a CreateBucket.
func (c *call) requestedLocation() []string {
	if c.route.op != "CreateBucket" {
		return nil
	}
	doc, err := c.document()
	if err != nil {
		return nil // the handler refuses it; so everywhere below
	}
	location, _, err := s3.ParseNewBucket(doc)
	if err != nil {
		return nil
	}
	return only(location)
}

// requestedHold is ON or OFF, from where the handler takes it: the document of a
// PutObjectLegalHold, else the header of a write.
func (c *call) requestedHold() string {
	if c.route.op != "PutObjectLegalHold" {
		return c.header("X-Amz-Object-Lock-Legal-Hold")
	}
	doc, err := c.document()
	if err != nil {
		return ""
	}
	on, err := s3.ParseLegalHold(doc)
	if err != nil {
		return ""
	}
	return map[bool]string{true: "ON", false: "OFF"}[on]
}

// requestedRetention answers for a retention, from where the handler takes it:
// the document of a PutObjectRetention, else the headers of a write.
func (c *call) requestedRetention(key string) []string {
	var l store.Lock
	var err error
	if c.route.op == "PutObjectRetention" {
		var doc []byte
		if doc, err = c.document(); err == nil {
			l.Mode, l.Until, err = s3.ParseRetention(doc, c.s.now())
		}
	} else {
		l, err = c.lock()
	}
	switch {
	case err != nil || l.Mode == "":
		return nil
	case key == "s3:object-lock-mode":
		return only(string(l.Mode))
	case key == "s3:object-lock-retain-until-date":
		return only(l.Until.UTC().Format(time.RFC3339))
	}
	return only(strconv.FormatInt(int64(l.Until.Sub(c.s.now())/(24*time.Hour)), 10))
}
