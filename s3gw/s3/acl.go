package s3

import (
	"strings"
)

// Groups that grants may name.
const (
	AllUsers           = "http://acs.amazonaws.com/groups/global/AllUsers"
	AuthenticatedUsers = "http://acs.amazonaws.com/groups/global/AuthenticatedUsers"
	logDelivery        = "http://acs.amazonaws.com/groups/s3/LogDelivery"
	// zaTeam is who AWS's canned ACL aws-exec-read means.
	zaTeam = "6aa5a366c34c1cbe25dc49211496e913e0351eb0e8c37aa3477e40942ec6b97c"
)

// Permission is what a grant gives, in S3's words.
type Permission string

// The permissions. FullControl is all others.
const (
	Read        Permission = "READ"
	Write       Permission = "WRITE"
	ReadACP     Permission = "READ_ACP"
	WriteACP    Permission = "WRITE_ACP"
	FullControl Permission = "FULL_CONTROL"
)

var permissions = map[Permission]bool{Read: true, Write: true, ReadACP: true, WriteACP: true, FullControl: true}

// Grant gives a permission to a canonical id or to one of the groups.
type Grant struct {
	Grantee    string
	Permission Permission
}

// ACL is a list of grants. In the metadata it is a text, "PERMISSION GRANTEE\n"
// for each grant; no text at all is the ACL that gives all to the owner and
// nothing to others.
type ACL []Grant

// grantsMax is AWS's bound.
const grantsMax = 100

// ParseACL reads what Text wrote. Lines that it does not know grant nothing.
func ParseACL(text []byte, owner string) ACL {
	if len(text) == 0 {
		return ACL{{owner, FullControl}}
	}
	acl := ACL{}
	for _, line := range strings.Split(string(text), "\n") {
		if p, grantee, ok := strings.Cut(line, " "); ok && permissions[Permission(p)] && grantee != "" {
			acl = append(acl, Grant{grantee, Permission(p)})
		}
	}
	return acl
}

// Text is the ACL for the metadata.
func (a ACL) Text(owner string) []byte {
	if len(a) == 1 && a[0] == (Grant{owner, FullControl}) {
		return nil
	}
	b := []byte{'\n'} // an ACL without grants is not the one of no text
	for _, g := range a {
		b = append(b, string(g.Permission)+" "+g.Grantee+"\n"...)
	}
	return b
}

// Allows reports whether the ACL gives a permission. An empty canonical id is a
// request without credentials. With ignorePublic grants to groups do not count.
func (a ACL) Allows(canonical string, p Permission, ignorePublic bool) bool {
	for _, g := range a {
		if g.Permission != p && g.Permission != FullControl {
			continue
		}
		switch g.Grantee {
		case AllUsers:
			if !ignorePublic {
				return true
			}
		case AuthenticatedUsers:
			if canonical != "" && !ignorePublic {
				return true
			}
		default:
			if canonical != "" && g.Grantee == canonical {
				return true
			}
		}
	}
	return false
}

// Public reports whether the ACL grants anything to everybody, or to everybody
// who has an account anywhere.
func (a ACL) Public() bool {
	for _, g := range a {
		if g.Grantee == AllUsers || g.Grantee == AuthenticatedUsers {
			return true
		}
	}
	return false
}

// Canned returns the ACL that a word of x-amz-acl means.
func Canned(word, owner, bucketOwner string, ofBucket bool) (ACL, error) {
	acl := ACL{{owner, FullControl}}
	switch word {
	case "private":
	case "public-read":
		acl = append(acl, Grant{AllUsers, Read})
	case "public-read-write":
		acl = append(acl, Grant{AllUsers, Read}, Grant{AllUsers, Write})
	case "authenticated-read":
		acl = append(acl, Grant{AuthenticatedUsers, Read})
	case "aws-exec-read":
		acl = append(acl, Grant{zaTeam, Read})
	case "log-delivery-write":
		if ofBucket {
			acl = append(acl, Grant{logDelivery, Write}, Grant{logDelivery, ReadACP})
			break
		}
		fallthrough
	case "bucket-owner-read", "bucket-owner-full-control":
		p := map[string]Permission{"bucket-owner-read": Read, "bucket-owner-full-control": FullControl}[word]
		if p != "" && !ofBucket && bucketOwner != owner {
			acl = append(acl, Grant{bucketOwner, p})
		}
		if p != "" {
			break // for a bucket they mean private, as on AWS
		}
		fallthrough
	default:
		return nil, E(InvalidArgument, "").With("ArgumentName", "x-amz-acl").With("ArgumentValue", printable(word))
	}
	return acl, nil
}

// Finder finds the canonical id of an account; ok is false if there is none.
type Finder interface {
	ByCanonical(id string) bool
	ByEmail(address string) (canonical string, ok bool)
}

// grantee judges one grantee.
func grantee(kind, value string, find Finder) (string, error) {
	switch kind {
	case "id", "ID":
		if !find.ByCanonical(value) {
			return "", E(InvalidArgument, "Invalid id").With("ArgumentName", "CanonicalUser/ID").With("ArgumentValue", printable(value))
		}
		return value, nil
	case "uri", "URI":
		if value != AllUsers && value != AuthenticatedUsers && value != logDelivery {
			return "", E(InvalidArgument, "Invalid group uri").With("ArgumentName", "Group/URI").With("ArgumentValue", printable(value))
		}
		return value, nil
	case "emailAddress", "EmailAddress":
		id, ok := find.ByEmail(value)
		if !ok {
			return "", E(UnresolvableGrantByEmailAddress, "")
		}
		return id, nil
	}
	return "", E(InvalidArgument, "Argument format not recognized").With("ArgumentValue", printable(kind))
}

// grantHeaders are the headers that grant, in the order of AWS's table of permissions.
var grantHeaders = []struct {
	name       string
	permission Permission
}{
	{"X-Amz-Grant-Read", Read}, {"X-Amz-Grant-Write", Write}, {"X-Amz-Grant-Read-Acp", ReadACP},
	{"X-Amz-Grant-Write-Acp", WriteACP}, {"X-Amz-Grant-Full-Control", FullControl},
}

// GrantsOf reads the x-amz-grant-* headers: lists of kind="value".
func GrantsOf(h map[string][]string, find Finder) (ACL, error) {
	var acl ACL
	for _, g := range grantHeaders {
		for _, line := range h[g.name] {
			for _, one := range strings.Split(line, ",") {
				kind, value, ok := strings.Cut(strings.TrimSpace(one), "=")
				if !ok {
					return nil, E(InvalidArgument, "Argument format not recognized").With("ArgumentName", strings.ToLower(g.name)).With("ArgumentValue", printable(one))
				}
				who, err := grantee(strings.TrimSpace(kind), strings.Trim(strings.TrimSpace(value), `"`), find)
				if err != nil {
					return nil, err
				}
				acl = append(acl, Grant{who, g.permission})
			}
		}
	}
	if len(acl) > grantsMax {
		return nil, E(InvalidRequest, "An ACL has at most 100 grants.")
	}
	return acl, nil
}

// HasGrants reports whether there is a header that grants.
func HasGrants(h map[string][]string) bool {
	for _, g := range grantHeaders {
		if len(h[g.name]) > 0 {
			return true
		}
	}
	return false
}

// ParseACLDocument reads an AccessControlPolicy. The owner that it names must be
// the real one.
func ParseACLDocument(doc []byte, owner string, find Finder) (ACL, error) {
	root, err := parseXML(doc)
	if err != nil {
		return nil, err
	}
	bad := func(why string) (ACL, error) { return nil, E(MalformedACLError, "").With("Reason", why) }
	if root.name != "AccessControlPolicy" {
		return bad("root " + printable(root.name))
	}
	var grants []*node
	listed, owned := false, false
	for _, c := range root.children {
		switch c.name {
		case "Owner":
			for _, o := range c.children {
				if o.name == "ID" && len(o.text) > 0 && string(o.text) != owner {
					return nil, E(AccessDenied, "The owner of an ACL cannot be changed.")
				}
				owned = owned || o.name == "ID" && len(o.text) > 0
			}
		case "AccessControlList":
			listed = true
			grants = append(grants, c.children...)
		default:
			return bad("element " + printable(c.name))
		}
	}
	if !owned || !listed || len(grants) > grantsMax {
		return bad("an ACL has an owner and a list of at most 100 grants")
	}
	acl := ACL{}
	for _, g := range grants {
		one, err := parseGrant(g, find)
		if err != nil {
			return nil, err
		}
		acl = append(acl, one)
	}
	return acl, nil
}

func parseGrant(n *node, find Finder) (g Grant, err error) {
	for _, c := range n.children {
		switch {
		case n.name != "Grant":
		case c.name == "Permission":
			g.Permission = Permission(strings.TrimSpace(string(c.text)))
		case c.name == "Grantee":
			for _, w := range c.children {
				if w.name == "ID" || w.name == "URI" || w.name == "EmailAddress" {
					if g.Grantee, err = grantee(w.name, strings.TrimSpace(string(w.text)), find); err != nil {
						return g, err
					}
				}
			}
		}
	}
	if g.Grantee == "" || !permissions[g.Permission] {
		return g, E(MalformedACLError, "")
	}
	return g, nil
}

func (g Grant) toGroup() bool { return strings.HasPrefix(g.Grantee, "http://") }

// AccessControlPolicy writes an ACL. The order of grants means nothing in S3; those
// to groups come first, where clients made for other stores look for them.
func (w *Writer) AccessControlPolicy(owner string, acl ACL) {
	var ordered ACL
	for _, groups := range []bool{true, false} {
		for _, g := range acl {
			if g.toGroup() == groups {
				ordered = append(ordered, g)
			}
		}
	}
	w.Begin("AccessControlPolicy")
	w.Owner("Owner", owner)
	w.Open("AccessControlList")
	for _, g := range ordered {
		w.Open("Grant")
		kind := "CanonicalUser"
		if g.toGroup() {
			kind = "Group"
		}
		w.B = append(w.B, `<Grantee xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="`+kind+`">`...)
		if kind == "Group" {
			w.Text("URI", g.Grantee)
		} else {
			w.Text("ID", g.Grantee)
			w.Text("DisplayName", w.displayName(g.Grantee))
		}
		w.Close("Grantee")
		w.Raw("Permission", string(g.Permission))
		w.Close("Grant")
	}
	w.Close("AccessControlList")
	w.Close("AccessControlPolicy")
}

// The modes of object ownership.
const (
	OwnerEnforced  = "BucketOwnerEnforced"
	OwnerPreferred = "BucketOwnerPreferred"
	ObjectWriter   = "ObjectWriter"
)

// CheckOwnership judges the name of a mode.
func CheckOwnership(mode string) error {
	if mode != OwnerEnforced && mode != OwnerPreferred && mode != ObjectWriter {
		return E(InvalidArgument, "Invalid x-amz-object-ownership header: "+printable(mode)).
			With("ArgumentName", "x-amz-object-ownership").With("ArgumentValue", printable(mode))
	}
	return nil
}

// ParseOwnershipControls reads the mode of an OwnershipControls document.
func ParseOwnershipControls(doc []byte) (string, error) {
	root, err := parseXML(doc)
	if err != nil {
		return "", err
	}
	if root.name != "OwnershipControls" || len(root.children) != 1 || root.children[0].name != "Rule" {
		return "", malformed("OwnershipControls has one Rule")
	}
	rule := root.children[0]
	if len(rule.children) != 1 || rule.children[0].name != "ObjectOwnership" {
		return "", malformed("a Rule has one ObjectOwnership")
	}
	mode := strings.TrimSpace(string(rule.children[0].text))
	if CheckOwnership(mode) != nil {
		return "", malformed("unknown mode of ownership")
	}
	return mode, nil
}

// PublicAccessBlock is what a bucket's public access block asks for.
type PublicAccessBlock struct {
	BlockACLs, IgnoreACLs, BlockPolicy, Restrict bool
}

// ParsePublicAccessBlock reads what CheckPublicAccessBlock wrote; nil is none.
// One that cannot be read blocks everything.
func ParsePublicAccessBlock(doc []byte) (b PublicAccessBlock) {
	if doc == nil {
		return b
	}
	root, err := parseXML(doc)
	if err != nil {
		return PublicAccessBlock{true, true, true, true}
	}
	for _, c := range root.children {
		on := string(c.text) == "true"
		switch c.name {
		case "BlockPublicAcls":
			b.BlockACLs = on
		case "IgnorePublicAcls":
			b.IgnoreACLs = on
		case "BlockPublicPolicy":
			b.BlockPolicy = on
		case "RestrictPublicBuckets":
			b.Restrict = on
		}
	}
	return b
}
