package directory

import (
	"context"
	"strings"

	"ashlar/s3gw/iam"
	"ashlar/s3gw/iam/session"
	"ashlar/s3gw/policy"
	"ashlar/s3gw/s3"
)

// Mint makes the credentials of a session.
func (d *Directory) Mint(ctx context.Context, c session.Claims) (session.Credentials, error) {
	secret, err := d.sessionSecret(ctx, true)
	if err != nil {
		return session.Credentials{}, err
	}
	return session.New(secret, c)
}

// Bounds of the policies that a session is given.
const (
	scopeBytesMax = 2048
	scopeARNsMax  = 10
)

// Scope bounds a session of an account by a policy, empty for none, and by managed ones.
func (d *Directory) Scope(ctx context.Context, a *iam.Account, c *session.Claims, text string, arns []string) error {
	if text == "" && len(arns) == 0 {
		return nil
	}
	c.Scoped = true
	if text != "" {
		if len(text) > scopeBytesMax {
			return s3.E(s3.PackedPolicyTooLarge, "")
		}
		if err := checkDocument(text, policy.Identity, scopeBytesMax); err != nil {
			return err
		}
		c.Scope = []string{text}
	}
	if len(arns) > scopeARNsMax {
		return s3.E(s3.PackedPolicyTooLarge, "")
	}
	ch := &change{d: d, ctx: ctx} // only reads
	for _, arn := range arns {
		as, _, err := ch.attachedAs(a, arn)
		if err != nil {
			return err
		}
		c.Attached = append(c.Attached, as)
	}
	return nil
}

// RoleOf returns the role of an ARN and its account; a nil role where there is none, or
// not under that ARN.
func (d *Directory) RoleOf(ctx context.Context, arn string) (*iam.Account, *Principal, error) {
	rest, ok := strings.CutPrefix(arn, "arn:aws:iam::")
	id, path, found := strings.Cut(rest, ":role/")
	a := d.AccountByID(id)
	if !ok || !found || a == nil {
		return nil, nil, nil
	}
	p := &Principal{}
	version, err := d.get(ctx, keyOf(a, byte(Role), path[strings.LastIndexByte(path, '/')+1:]), p)
	if err != nil || version == 0 || iam.ARN(a, "role", p.Path, p.Name) != arn {
		return a, nil, err
	}
	return a, p, nil
}
