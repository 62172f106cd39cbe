package s3gw

import (
	"sync"

	"ashlar"
	"ashlar/s3gw/policy"
	"ashlar/s3gw/s3"
	"ashlar/s3gw/store"
)

// Settings that decide who may do what. The names are part of the format of the
// metadata, and so are the values:
//
//	policy      the JSON as it was put
//	ownership   a mode of object ownership, or "none" where the controls were
//	            deleted or never made: then ACLs count and objects are their writer's
//	acl         grants, see s3.ACL
const (
	settingPolicy    = "policy"
	settingOwnership = "ownership"
	settingACL       = "acl"
)

const noOwnership = "none"

// access is what a bucket says about who may do what.
type access struct {
	store.Access
	policy    *policy.Policy
	public    bool // the policy is
	block     s3.PublicAccessBlock
	ownership string // a mode; ObjectWriter where there are no controls
	controls  bool   // there are ownership controls
	unasked   bool   // the mode is the default that nobody chose
	acl       s3.ACL
	website   *s3.Website // nil: it is none
	logging   *s3.Logging // nil: there is no access log
}

// lockedOut denies everything: it stands for a policy that cannot be read.
var lockedOut, _ = policy.Parse([]byte(`{"Statement":{"Effect":"Deny","Principal":"*","Action":"*","Resource":"*"}}`), policy.Bucket, "")

func newAccess(a store.Access) *access {
	out := &access{Access: a, block: s3.ParsePublicAccessBlock(a.Setting(settingPublicBlock))}
	if doc := a.Setting(settingPolicy); doc != nil {
		p, err := policy.Parse(doc, policy.Bucket, a.Name)
		if err != nil {
			p = lockedOut
		}
		out.policy, out.public = p, p.Public()
	}
	switch mode := string(a.Setting(settingOwnership)); mode {
	case "", s3.OwnerEnforced:
		out.ownership, out.controls, out.unasked = s3.OwnerEnforced, true, mode == ""
	case noOwnership:
		out.ownership = s3.ObjectWriter
	default:
		out.ownership, out.controls = mode, true
	}
	out.acl = s3.ACL{{Grantee: a.Owner, Permission: s3.FullControl}}
	if out.ownership != s3.OwnerEnforced {
		out.acl = s3.ParseACL(a.Setting(settingACL), a.Owner)
	}
	if doc := a.Setting(settingWebsite); doc != nil {
		out.website, _ = s3.ParseWebsite(doc) // of what was judged when it was put
	}
	if doc := a.Setting(settingLogging); doc != nil {
		out.logging, _ = s3.ParseLogging(doc)
	}
	return out
}

// accessCache keeps what was parsed, by name; the record's revision says whether
// it is still what the bucket says.
type accessCache struct {
	mu struct {
		sync.Mutex
		entries map[string]*access
	}
}

const accessCacheMax = 4096

func (k *accessCache) of(a store.Access) *access {
	k.mu.Lock()
	e := k.mu.entries[a.Name]
	k.mu.Unlock()
	if e != nil && e.ID == a.ID && e.Rev == a.Rev && a.ID != (ashlar.BucketID{}) {
		return e
	}
	e = newAccess(a)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.mu.entries == nil || len(k.mu.entries) >= accessCacheMax {
		k.mu.entries = map[string]*access{}
	}
	k.mu.entries[a.Name] = e
	return e
}

// access returns what a bucket says; it is asked once in a request.
func (c *call) access(name s3.Bucket) (*access, error) {
	if a := c.known[name]; a != nil {
		return a, nil
	}
	rec, err := c.s.backend.Access(c.ctx, string(name))
	if err != nil {
		return nil, err
	}
	a := c.s.accesses.of(rec)
	if c.known == nil {
		c.known = map[s3.Bucket]*access{}
	}
	c.known[name] = a
	return a, nil
}

// displayName returns the name that is shown beside a canonical id.
func (s *Server) displayName(canonical string) string {
	if s.accounts == nil {
		return canonical
	}
	if a := s.accounts.Account(canonical); a != nil {
		return a.Name
	}
	return ""
}

// accountID returns the id of the account with a canonical id.
func (s *Server) accountID(canonical string) string {
	if s.accounts != nil {
		if a := s.accounts.Account(canonical); a != nil {
			return a.ID
		}
	}
	return canonical
}

// finder finds the accounts that ACLs name.
type finder struct{ s *Server }

func (f finder) ByCanonical(id string) bool {
	return f.s.accounts == nil || f.s.accounts.Account(id) != nil
}

func (f finder) ByEmail(address string) (string, bool) {
	if f.s.accounts == nil {
		return "", false
	}
	a := f.s.accounts.AccountByEmail(address)
	if a == nil {
		return "", false
	}
	return a.Canonical, true
}
