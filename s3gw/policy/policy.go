// Package policy judges requests by AWS policy documents: it parses the JSON of a
// bucket policy, an identity policy or a trust policy, and says whether it denies
// or allows an action on a resource.
//
// It is pure: no clock, no network, no store. What a condition may ask for is
// passed in as a function from condition keys to values. A document that it does
// not understand whole is refused when it is parsed: an unknown operator, key or
// element is never ignored, since a condition that is ignored opens a door.
//
// How the judgements of several documents are combined (identity, boundary,
// session, bucket; one account or two) is the caller's affair: package iam and
// the gateway do that.
//
//	parse.go      JSON to Policy, and everything that is malformed
//	pattern.go    wildcards and policy variables
//	condition.go  operators
//	keys.go       the actions and condition keys that there are
//	public.go     whether a bucket policy makes a bucket public
package policy

// Decision is what one document says about one request. The greater wins.
type Decision uint8

const (
	// None: no statement matches.
	None Decision = iota
	// Delegated: allowed to the account as a whole. Whoever acts for the account
	// needs the right from its own policies too.
	Delegated
	// Allow: allowed to exactly this principal, or to everybody.
	Allow
	// Deny: forbidden, whatever else is allowed.
	Deny
)

func (d Decision) String() string {
	return [...]string{"none", "delegated", "allow", "deny"}[d]
}

// Principal is who asks. The zero value with Anonymous set is nobody.
type Principal struct {
	Anonymous bool
	// Root says that the account itself asks.
	Root bool
	// Account and Canonical are the two ids of the account.
	Account, Canonical string
	// ARNs name the principal: of a session, first the session and then its role.
	ARNs []string
}

// Request is one question.
type Request struct {
	Principal Principal
	// Action is for example s3:GetObject, Resource an ARN.
	Action, Resource string
	// Values returns the values of a condition key, given in lower case; nil for a
	// key that the request does not have. Nil means that there are none at all.
	Values func(key string) []string
}

func (r *Request) values(key string) []string {
	if r.Values == nil {
		return nil
	}
	return r.Values(key)
}

// Policy is a document that was understood.
type Policy struct {
	statements []statement
	// variables says that ${…} means something: it does since version 2012-10-17.
	variables bool
}

type statement struct {
	deny bool
	// principals is nil in identity policies, whose principal is their owner.
	principals    *principals
	notPrincipals bool
	actions       []pattern
	notActions    bool
	resources     []pattern // nil in trust policies
	notResources  bool
	conditions    []condition
}

// Evaluate returns the strongest judgement among the statements.
func (p *Policy) Evaluate(r *Request) Decision {
	best := None
	if p == nil {
		return best
	}
	for i := range p.statements {
		s := &p.statements[i]
		d := s.judge(r)
		if d == Deny {
			return Deny
		}
		best = max(best, d)
	}
	return best
}

func (s *statement) judge(r *Request) Decision {
	d := Allow
	if s.principals != nil {
		if d = s.principals.match(&r.Principal); s.notPrincipals {
			d = map[bool]Decision{true: Allow, false: None}[d == None]
		}
	}
	if d == None || anyMatch(s.actions, lower(r.Action), r) == s.notActions {
		return None
	}
	if s.resources != nil && anyMatch(s.resources, r.Resource, r) == s.notResources {
		return None
	}
	for i := range s.conditions {
		if !s.conditions[i].holds(r) {
			return None
		}
	}
	if s.deny {
		return Deny
	}
	return d
}

func anyMatch(list []pattern, text string, r *Request) bool {
	for i := range list {
		if list[i].match(text, r) {
			return true
		}
	}
	return false
}

// principals is the set of a Principal element.
type principals struct {
	everybody bool
	accounts  map[string]bool // ids of accounts, canonical or not
	arns      map[string]bool
}

// match says how a principal is named: not at all, through its account, or itself.
func (s *principals) match(p *Principal) Decision {
	switch {
	case s.everybody:
		return Allow
	case p.Anonymous:
		return None
	}
	for _, arn := range p.ARNs {
		if s.arns[arn] {
			return Allow
		}
	}
	if p.Account != "" && s.accounts[p.Account] || p.Canonical != "" && s.accounts[p.Canonical] {
		if p.Root {
			return Allow
		}
		return Delegated
	}
	return None
}
