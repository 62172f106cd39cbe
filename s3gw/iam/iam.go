// Package iam knows who there is: accounts, which own buckets and objects, and
// the identities that act for them, with the policies that say what they may.
//
// An account has two names: its id, twelve digits or a word, which stands in
// ARNs, and its canonical id, 64 hexadecimal digits, which S3 writes where it
// says who owns something. The canonical id is what the metadata keep.
//
// Accounts that are configured (Static) have root keys only: an identity that may
// do everything in its account. They are for the bootstrap and for test clusters.
// Users, groups, roles and their keys are in the metadata: package iam/directory.
//
// The package does not know requests or buckets; the gateway combines what an
// identity may with what a bucket allows.
package iam

import (
	"crypto/sha256"
	"encoding/hex"
	"time"

	"ashlar/s3gw/policy"
)

// Account owns buckets and objects.
type Account struct {
	ID, Canonical string
	// Name is shown beside the canonical id.
	Name, Email string
}

// RootID is the id of the account of the root key where none is configured.
const RootID = "000000000001"

// RootCanonical is that account's canonical id.
func RootCanonical() string { return CanonicalOf(RootID) }

// CanonicalOf returns the canonical id of an account that was given none.
func CanonicalOf(id string) string {
	sum := sha256.Sum256([]byte("ashlar account " + id))
	return hex.EncodeToString(sum[:])
}

// Kind is what sort of principal an identity is, in the words of aws:PrincipalType.
type Kind string

// The kinds of identities.
const (
	Anonymous Kind = "Anonymous"
	Root      Kind = "Account"
	User      Kind = "User"
	Session   Kind = "AssumedRole"
)

// Identity is who sent a request.
type Identity struct {
	Kind    Kind
	Account *Account // of Anonymous: Nobody
	// ARN names the identity, Role the role of a session.
	ARN, Role string
	// Name and ID are aws:username and aws:userid.
	Name, ID string
	// Policies allow; Boundary, if not nil, bounds what they allow, and so does Scope:
	// the policies that a session was given, which allow together. A Scope that is not
	// nil and empty allows nothing.
	Policies []*policy.Policy
	Boundary *policy.Policy
	Scope    []*policy.Policy
	// Issued is when the credentials of a session were made, zero for permanent ones.
	Issued time.Time
	// Plain says that a session is only a copy of its maker's rights, from
	// GetSessionToken: it cannot administer identities.
	Plain bool
	// Provider is the ARN of the identity provider that vouched for a session.
	Provider string
}

// Nobody is the account of requests without credentials, with the canonical id
// that AWS gives it. It has no keys.
var Nobody = &Account{Canonical: "65a011a29cdf8ec533ec3d1ccaae921c"}

// Unknown is the identity of a request without credentials.
var Unknown = &Identity{Kind: Anonymous, Account: Nobody}

// RootOf returns the identity of an account's own keys.
func RootOf(a *Account) *Identity {
	return &Identity{Kind: Root, Account: a, ARN: "arn:aws:iam::" + a.ID + ":root", ID: a.ID}
}

// Principal is the identity as policies see it.
func (id *Identity) Principal() policy.Principal {
	if id.Kind == Anonymous {
		return policy.Principal{Anonymous: true}
	}
	p := policy.Principal{Root: id.Kind == Root, Account: id.Account.ID, Canonical: id.Account.Canonical, ARNs: []string{id.ARN}}
	if id.Role != "" {
		p.ARNs = append(p.ARNs, id.Role)
	}
	return p
}

// Judge says what the identity's own policies say: Deny, Allow or None. The root
// of an account is allowed everything, nobody nothing. What a boundary or a
// session's policies do not allow is not allowed, and what any denies is denied.
func (id *Identity) Judge(r *policy.Request) policy.Decision {
	if id.Kind == Anonymous {
		return policy.None
	}
	own := evaluate(id.Policies, r)
	if id.Kind == Root {
		own = max(own, policy.Allow)
	}
	switch bound := id.bound(r); {
	case own == policy.Deny, bound == policy.Deny:
		return policy.Deny
	case own == policy.Allow && bound == policy.Allow:
		return policy.Allow
	}
	return policy.None
}

// Admits reports whether the identity may have what somebody else's policy gives it:
// a session is bounded there too. The boundary of a user is no bound for that, as on AWS.
func (id *Identity) Admits(r *policy.Request) bool {
	if id.Kind == User && id.Scope == nil {
		return true
	}
	return id.bound(r) == policy.Allow
}

// bound says what boundary and scope leave of a right: Allow where there are none.
func (id *Identity) bound(r *policy.Request) policy.Decision {
	boundary, scope := policy.Allow, policy.Allow
	if id.Boundary != nil {
		boundary = id.Boundary.Evaluate(r)
	}
	if id.Scope != nil {
		scope = evaluate(id.Scope, r)
	}
	if boundary == policy.Deny || scope == policy.Deny {
		return policy.Deny
	}
	return min(boundary, scope)
}

// evaluate returns the strongest judgement of several documents.
func evaluate(list []*policy.Policy, r *policy.Request) policy.Decision {
	best := policy.None
	for _, p := range list {
		best = max(best, p.Evaluate(r))
	}
	return best
}

// ARN names something of an account: a user, group, role or policy, whose path begins
// and ends with a slash.
func ARN(a *Account, sort, path, name string) string {
	return "arn:aws:iam::" + a.ID + ":" + sort + path + name
}
