package policy

import (
	"slices"
	"strings"
)

// AnonymousID is the aws:userid of a request without credentials.
const AnonymousID = "anonymous"

// narrowing are the condition keys that keep a statement for everybody from
// being public, if they are held to fixed values.
var narrowing = words(`aws:PrincipalAccount aws:PrincipalArn aws:PrincipalOrgID aws:PrincipalOrgPaths aws:SourceAccount
	aws:SourceArn aws:SourceIp aws:SourceOrgID aws:SourceOrgPaths aws:SourceOwner aws:SourceVpc aws:SourceVpce aws:userid
	aws:username s3:DataAccessPointAccount s3:DataAccessPointArn`)

// Ranges of addresses that are as good as everybody.
const (
	wideBitsV4 = 8
	wideBitsV6 = 32
)

// Public reports whether a bucket policy makes its bucket public as AWS defines
// it: a statement allows something to everybody, and no condition holds it to
// fixed values of a key that says who or whence. NotPrincipal allows everybody
// but some, so it is public too.
func (p *Policy) Public() bool {
	if p == nil {
		return false
	}
	for i := range p.statements {
		s := &p.statements[i]
		if s.deny || s.principals == nil || !s.principals.everybody && !s.notPrincipals {
			continue
		}
		narrow := false
		for j := range s.conditions {
			narrow = narrow || s.conditions[j].narrows()
		}
		if !narrow {
			return true
		}
	}
	return false
}

// AllowsAllBut reports whether a statement allows something to everybody but those
// of its NotPrincipal. AWS does not support that: such a policy is not taken any
// more, and judged as it stands where one was.
func (p *Policy) AllowsAllBut() bool {
	return slices.ContainsFunc(p.statements, func(s statement) bool { return !s.deny && s.notPrincipals })
}

func (c *condition) narrows() bool {
	if !narrowing[c.key] || c.op.negated || c.op.is == nil || c.ifExists || c.quantifier == forAll {
		return false
	}
	for i := range c.values {
		o := &c.values[i]
		switch {
		case o.net.IsValid():
			wide := wideBitsV6
			if o.net.Addr().Is4() {
				wide = wideBitsV4
			}
			if o.net.Bits() < wide {
				return false
			}
		case !o.text.fixed() && !fixedARN(c, &o.text), c.key == "aws:userid" && strings.EqualFold(o.text.plain, AnonymousID):
			return false
		}
	}
	return true
}

// fixedARN reports whether an ARN with wildcards still names one account: that
// is where it stands in the fifth part.
func fixedARN(c *condition, p *pattern) bool {
	if c.key != "aws:principalarn" && c.key != "aws:sourcearn" || len(p.pieces) != 1 || p.pieces[0].variable != "" {
		return false
	}
	parts := splitARN(p.pieces[0].symbols)
	if len(parts) != arnParts || len(parts[4]) == 0 {
		return false
	}
	for _, s := range parts[4] {
		if s < 0 {
			return false
		}
	}
	return true
}
