package directory

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"ashlar/daemon/meta"
	"ashlar/s3gw/iam"
	"ashlar/s3gw/policy"
	"ashlar/s3gw/s3"
)

// builtin are the managed policies that every account has, under AWS's names.
var builtin = map[string]string{
	"AdministratorAccess":    `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`,
	"AmazonS3FullAccess":     `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}`,
	"AmazonS3ReadOnlyAccess": `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:Get*","s3:List*"],"Resource":"*"}]}`,
	"IAMFullAccess":          `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iam:*","Resource":"*"}]}`,
	"IAMReadOnlyAccess":      `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["iam:Get*","iam:List*"],"Resource":"*"}]}`,
}

const (
	builtinARN  = "arn:aws:iam::aws:policy/"
	builtinMark = "aws:" // before the name, where one is attached
)

// Builtin returns the managed policies that every account has, by name.
func Builtin() []*Policy {
	var list []*Policy
	for name := range builtin {
		list = append(list, builtinPolicy(name))
	}
	slices.SortFunc(list, func(a, b *Policy) int { return strings.Compare(a.Name, b.Name) })
	return list
}

func builtinPolicy(name string) *Policy {
	return &Policy{Format: format, Name: name, Id: "ANPA" + strings.ToUpper(name), Path: "/", Current: 1, Last: 1,
		Versions: []*PolicyVersion{{Number: 1, Text: builtin[name]}}}
}

// BuiltinARN names a policy that every account has.
func BuiltinARN(p *Policy) string { return builtinARN + p.Name }

// PolicyARN returns the ARN of a policy as it stands in Attached or Boundary. It reads
// the policy's path where it has one of its own; a policy that is gone has none.
func (d *Directory) PolicyARN(ctx context.Context, a *iam.Account, attached string) (string, error) {
	if name, ok := strings.CutPrefix(attached, builtinMark); ok {
		return builtinARN + name, nil
	}
	p := &Policy{}
	if _, err := d.get(ctx, keyOf(a, sortPolicy, attached), p); err != nil {
		return "", err
	}
	return iam.ARN(a, "policy", p.Path, attached), nil
}

// AttachedName returns the name under which a policy was attached from what an ARN ends with.
func AttachedName(attached string) string { return strings.TrimPrefix(attached, builtinMark) }

// policyName returns the name in the ARN of a policy of the account, or of one that every
// account has (then it says so).
func policyName(a *iam.Account, arn string) (name string, every bool, err error) {
	if name, ok := strings.CutPrefix(arn, builtinARN); ok {
		if builtin[name] == "" {
			return "", true, s3.E(s3.NoSuchEntity, "Policy "+arn+" does not exist or is not attachable.")
		}
		return name, true, nil
	}
	rest, ok := strings.CutPrefix(arn, "arn:aws:iam::"+a.ID+":policy/")
	name = rest[strings.LastIndexByte(rest, '/')+1:]
	if !ok || name == "" {
		return "", false, s3.E(s3.NoSuchEntity, "Policy "+arn+" does not exist or is not attachable.")
	}
	return name, false, nil
}

// managed reads the policy of an ARN that the change depends on; its key is nil for one
// that every account has.
func (ch *change) managed(a *iam.Account, arn string) (*Policy, []byte, error) {
	name, every, err := policyName(a, arn)
	if err != nil {
		return nil, nil, err
	}
	if every {
		return builtinPolicy(name), nil, nil
	}
	p, key := &Policy{}, keyOf(a, sortPolicy, name)
	there, err := ch.read(key, p)
	if err == nil && (!there || iam.ARN(a, "policy", p.Path, p.Name) != arn) {
		err = s3.E(s3.NoSuchEntity, "Policy "+arn+" does not exist or is not attachable.")
	}
	return p, key, err
}

// attachedAs returns how the policy of an ARN stands in Attached and Boundary, and its
// counter, nil for one that every account has.
func (ch *change) attachedAs(a *iam.Account, arn string) (string, []byte, error) {
	p, key, err := ch.managed(a, arn)
	switch {
	case err != nil:
		return "", nil, err
	case key == nil:
		return builtinMark + p.Name, nil, nil
	}
	return p.Name, counterOf(a, sortPolicy, p.Name), nil
}

// released counts one attachment less.
func (ch *change) released(a *iam.Account, attached string) {
	if !strings.HasPrefix(attached, builtinMark) {
		ch.count(counterOf(a, sortPolicy, attached), -1)
	}
}

func (ch *change) setBoundary(a *iam.Account, p *Principal, arn string) error {
	as, counter, err := ch.attachedAs(a, arn)
	if err != nil {
		return err
	}
	if p.Boundary != "" {
		ch.released(a, p.Boundary)
	}
	if counter != nil {
		ch.count(counter, 1)
	}
	p.Boundary = as
	return nil
}

// SetBoundary bounds a user or role by a managed policy; an empty ARN takes the bound away.
func (d *Directory) SetBoundary(ctx context.Context, a *iam.Account, sort Sort, name, arn string) error {
	return d.alter(ctx, a, sort, name, func(ch *change, p *Principal) error {
		switch {
		case arn != "":
			return ch.setBoundary(a, p, arn)
		case p.Boundary == "":
			return noSuch("permissions boundary of "+sort.String(), name)
		}
		ch.released(a, p.Boundary)
		p.Boundary = ""
		return nil
	})
}

// Attach gives a principal a managed policy; one that it has stays.
func (d *Directory) Attach(ctx context.Context, a *iam.Account, sort Sort, name, arn string) error {
	return d.alter(ctx, a, sort, name, func(ch *change, p *Principal) error {
		as, counter, err := ch.attachedAs(a, arn)
		if err != nil {
			return err
		}
		at, found := slices.BinarySearch(p.Attached, as)
		switch {
		case found:
			return nil
		case len(p.Attached) >= AttachedMax:
			return s3.E(s3.LimitExceeded, limitText("Cannot exceed quota for PoliciesPer%s: %d", strings.ToUpper(sort.String()[:1])+sort.String()[1:], AttachedMax))
		}
		p.Attached = slices.Insert(p.Attached, at, as)
		if counter != nil {
			ch.count(counter, 1)
		}
		return nil
	})
}

// Detach takes a managed policy from a principal.
func (d *Directory) Detach(ctx context.Context, a *iam.Account, sort Sort, name, arn string) error {
	policyName, every, err := policyName(a, arn)
	if err != nil {
		return err
	}
	if every {
		policyName = builtinMark + policyName
	}
	return d.alter(ctx, a, sort, name, func(ch *change, p *Principal) error {
		at, found := slices.BinarySearch(p.Attached, policyName)
		if !found {
			return s3.E(s3.NoSuchEntity, "Policy "+arn+" was not found.")
		}
		p.Attached = slices.Delete(p.Attached, at, at+1)
		ch.released(a, policyName)
		return nil
	})
}

// CreatePolicy makes a managed policy.
func (d *Directory) CreatePolicy(ctx context.Context, a *iam.Account, name, path, description, text string) (*Policy, error) {
	if err := cmpErr(checkName("PolicyName", name, otherNameMax), checkPath(path), checkDocument(text, policy.Identity, managedMax)); err != nil {
		return nil, err
	}
	if len(description) > descriptionMax {
		return nil, invalid("Description is longer than %d characters", descriptionMax)
	}
	now := d.clock().UnixNano()
	p := &Policy{Format: format, Name: name, Id: newID("ANPA"), Path: path, Description: description, CreatedNs: now, UpdatedNs: now,
		Current: 1, Last: 1, Versions: []*PolicyVersion{{Number: 1, Text: text, CreatedNs: now}}}
	return p, d.change(ctx, func(ch *change) error {
		key := keyOf(a, sortPolicy, name)
		if there, err := ch.read(key, &Policy{}); err != nil || there {
			return cmpErr(err, s3.E(s3.EntityAlreadyExists, "A policy called "+name+" already exists. Duplicate names are not allowed."))
		}
		return ch.put(key, p)
	})
}

// Policy returns a managed policy and how often it is attached.
func (d *Directory) Policy(ctx context.Context, a *iam.Account, arn string) (*Policy, int64, error) {
	ch := &change{d: d, ctx: ctx} // only reads
	p, key, err := ch.managed(a, arn)
	if err != nil || key == nil {
		return p, 0, err
	}
	n, err := d.Attachments(ctx, a, p.Name)
	return p, n, err
}

// Attachments says how often a policy of the account is attached or a boundary.
func (d *Directory) Attachments(ctx context.Context, a *iam.Account, name string) (int64, error) {
	return d.counter(ctx, counterOf(a, sortPolicy, name))
}

// Policies lists the managed policies of the account, as List does.
func (d *Directory) Policies(ctx context.Context, a *iam.Account, prefix, marker string, limit int) ([]*Policy, string, error) {
	return named(ctx, d, a, sortPolicy, marker, limit, func() *Policy { return &Policy{} },
		func(p *Policy) bool { return strings.HasPrefix(p.Path, prefix) })
}

// DeletePolicy deletes a managed policy that is attached to nothing and has one version.
func (d *Directory) DeletePolicy(ctx context.Context, a *iam.Account, arn string) error {
	return d.change(ctx, func(ch *change) error {
		p, key, err := ch.managed(a, arn)
		switch {
		case err != nil:
			return err
		case key == nil:
			return errBuiltin
		case len(p.Versions) > 1:
			return s3.E(s3.DeleteConflict, "This policy has more than one version. Before you delete a policy, you must delete the policy's versions.")
		}
		ch.retire(key, counterOf(a, sortPolicy, p.Name))
		return nil
	})
}

var errBuiltin = s3.E(s3.AccessDenied, "Policies that every account has cannot be changed.")

// alterPolicy changes one managed policy by fn.
func (d *Directory) alterPolicy(ctx context.Context, a *iam.Account, arn string, fn func(*Policy) error) error {
	return d.change(ctx, func(ch *change) error {
		p, key, err := ch.managed(a, arn)
		if err != nil {
			return err
		}
		if key == nil {
			return errBuiltin
		}
		if err := fn(p); err != nil {
			return err
		}
		p.UpdatedNs = d.clock().UnixNano()
		return ch.put(key, p)
	})
}

// AddVersion gives a policy another version and returns it; current makes it the one
// that holds.
func (d *Directory) AddVersion(ctx context.Context, a *iam.Account, arn, text string, current bool) (made *PolicyVersion, err error) {
	if err := checkDocument(text, policy.Identity, managedMax); err != nil {
		return nil, err
	}
	err = d.alterPolicy(ctx, a, arn, func(p *Policy) error {
		if len(p.Versions) >= VersionsMax {
			return s3.E(s3.LimitExceeded, "A managed policy can have up to 5 versions. Before you create a new version, you must delete an existing version.")
		}
		p.Last++
		made = &PolicyVersion{Number: p.Last, Text: text, CreatedNs: d.clock().UnixNano()}
		p.Versions = append(p.Versions, made)
		if current {
			p.Current = p.Last
		}
		return nil
	})
	return made, err
}

// SetCurrent makes a version the one that holds.
func (d *Directory) SetCurrent(ctx context.Context, a *iam.Account, arn string, number uint32) error {
	return d.alterPolicy(ctx, a, arn, func(p *Policy) error {
		if p.Version(number) == nil {
			return noSuchVersion(arn, number)
		}
		p.Current = number
		return nil
	})
}

// DeleteVersion deletes a version that does not hold.
func (d *Directory) DeleteVersion(ctx context.Context, a *iam.Account, arn string, number uint32) error {
	return d.alterPolicy(ctx, a, arn, func(p *Policy) error {
		v := p.Version(number)
		switch {
		case v == nil:
			return noSuchVersion(arn, number)
		case number == p.Current:
			return s3.E(s3.DeleteConflict, "Cannot delete the default version of a policy.")
		}
		p.Versions = slices.DeleteFunc(p.Versions, func(w *PolicyVersion) bool { return w == v })
		return nil
	})
}

func noSuchVersion(arn string, number uint32) error {
	return s3.E(s3.NoSuchEntity, fmt.Sprintf("Policy %s version v%d does not exist or is not attachable.", arn, number))
}

// Version returns a version of the policy, nil if there is none.
func (p *Policy) Version(number uint32) *PolicyVersion {
	for _, v := range p.Versions {
		if v.Number == number {
			return v
		}
	}
	return nil
}

func limitText(format string, args ...any) string { return fmt.Sprintf(format, args...) }

// checkDocument judges a policy before it is kept.
func checkDocument(text string, kind policy.Kind, bytesMax int) error {
	if policy.Solid([]byte(text)) > bytesMax {
		return s3.E(s3.LimitExceeded, limitText("Cannot exceed quota for PolicySize: %d", bytesMax))
	}
	if _, err := policy.Parse([]byte(text), kind, ""); err != nil {
		if errors.Is(err, policy.ErrTooLarge) {
			return s3.E(s3.LimitExceeded, err.Error())
		}
		return s3.E(s3.MalformedPolicyDocument, err.Error())
	}
	return nil
}

// Provider rows.

func providerKey(a *iam.Account, url string) []byte {
	return append(under(a, sortProvider), ProviderName(url)...)
}

// ProviderName is what names a provider in its ARN and in condition keys: its URL
// without the scheme.
func ProviderName(url string) string {
	_, name, _ := strings.Cut(url, "://")
	return strings.TrimSuffix(name, "/")
}

// AudiencesMax bounds the audiences of a provider.
const AudiencesMax = 100

// PutProvider changes by fn which tokens of a provider an account accepts. there says
// whether it must or must not accept some already.
func (d *Directory) PutProvider(ctx context.Context, a *iam.Account, url string, there bool, fn func(p *Provider) error) error {
	return d.change(ctx, func(ch *change) error {
		p, key := &Provider{}, providerKey(a, url)
		found, err := ch.read(key, p)
		switch {
		case err != nil:
			return err
		case found && !there:
			return s3.E(s3.EntityAlreadyExists, "Provider with url "+url+" already exists.")
		case !found && there:
			return noSuch("OpenIDConnect provider", url)
		case !found:
			p = &Provider{Format: format, Url: url, CreatedNs: d.clock().UnixNano()}
		}
		if err := fn(p); err != nil {
			return err
		}
		if len(p.Audiences) > AudiencesMax {
			return s3.E(s3.LimitExceeded, limitText("Cannot exceed quota for ClientIdsPerOpenIdConnectProvider: %d", AudiencesMax))
		}
		return ch.put(key, p)
	})
}

// DeleteProvider makes an account accept them no more.
func (d *Directory) DeleteProvider(ctx context.Context, a *iam.Account, url string) error {
	return d.change(ctx, func(ch *change) error {
		key := providerKey(a, url)
		there, err := ch.read(key, &Provider{})
		if err != nil || !there {
			return cmpErr(err, noSuch("OpenIDConnect provider", url))
		}
		ch.drop(key)
		return nil
	})
}

// Provider returns the provider of an issuer, NoSuchEntity if the account accepts none.
func (d *Directory) Provider(ctx context.Context, a *iam.Account, url string) (*Provider, error) {
	p := &Provider{}
	version, err := d.get(ctx, providerKey(a, url), p)
	if err == nil && version == 0 {
		err = noSuch("OpenIDConnect provider", url)
	}
	return p, err
}

// Providers lists those of an account.
func (d *Directory) Providers(ctx context.Context, a *iam.Account) (list []*Provider, err error) {
	err = d.pages(ctx, under(a, sortProvider), nil, func(r *meta.Row) (bool, error) {
		p := &Provider{}
		err := decode(r, p)
		list = append(list, p)
		return err == nil, err
	})
	return list, err
}
