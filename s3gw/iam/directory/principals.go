package directory

import (
	"context"
	"slices"
	"strings"

	"ashlar/daemon/meta"
	"ashlar/s3gw/iam"
	"ashlar/s3gw/policy"
	"ashlar/s3gw/s3"
)

// Create makes a user, group or role of p's name, path, boundary (an ARN), and, of a
// role, trust, description and session length. It returns what was made.
func (d *Directory) Create(ctx context.Context, a *iam.Account, sort Sort, p *Principal) (*Principal, error) {
	if err := checkName(sort.String()+"Name", p.Name, nameMax(sort)); err != nil {
		return nil, err
	}
	if err := checkPath(p.Path); err != nil {
		return nil, err
	}
	if sort == Role {
		if err := checkRole(p); err != nil {
			return nil, err
		}
	}
	p.Format, p.Id, p.CreatedNs = format, newID(idPrefixes[sort]), d.clock().UnixNano()
	boundary := p.Boundary
	return p, d.change(ctx, func(ch *change) error {
		key := keyOf(a, byte(sort), p.Name)
		if there, err := ch.read(key, &Principal{}); err != nil || there {
			return cmpErr(err, exists(sort.String(), p.Name))
		}
		p.Boundary = ""
		if boundary != "" {
			if err := ch.setBoundary(a, p, boundary); err != nil {
				return err
			}
		}
		return ch.put(key, p)
	})
}

// cmpErr returns the first that is not nil.
func cmpErr(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// Bounds of the sessions of a role, in seconds.
const (
	SessionSecondsMin     = 900
	SessionSecondsDefault = 3600
	SessionSecondsMax     = 43200
)

func checkRole(p *Principal) error {
	if err := checkDocument(p.Trust, policy.Trust, trustMax); err != nil {
		return err
	}
	if p.SessionSecondsMax < SessionSecondsDefault || p.SessionSecondsMax > SessionSecondsMax {
		return invalid("MaxSessionDuration must be %d to %d seconds", SessionSecondsDefault, SessionSecondsMax)
	}
	if len(p.Description) > descriptionMax {
		return invalid("Description is longer than %d characters", descriptionMax)
	}
	return nil
}

// Get returns a user, group or role.
func (d *Directory) Get(ctx context.Context, a *iam.Account, sort Sort, name string) (*Principal, error) {
	p := &Principal{}
	version, err := d.get(ctx, keyOf(a, byte(sort), name), p)
	if err == nil && (version == 0 || p.Name != name) {
		err = noSuch(sort.String(), name)
	}
	return p, err
}

// List returns at most limit principals of a sort whose paths begin with prefix, behind
// the marker of the page before, and the marker of the next page, empty at the end.
func (d *Directory) List(ctx context.Context, a *iam.Account, sort Sort, prefix, marker string, limit int) (list []*Principal, next string, err error) {
	return named(ctx, d, a, byte(sort), marker, limit, func() *Principal { return &Principal{} },
		func(p *Principal) bool { return strings.HasPrefix(p.Path, prefix) })
}

// Members returns at most limit users of a group, as List does.
func (d *Directory) Members(ctx context.Context, a *iam.Account, group, marker string, limit int) (list []*Principal, next string, err error) {
	return named(ctx, d, a, byte(User), marker, limit, func() *Principal { return &Principal{} },
		func(p *Principal) bool { return slices.Contains(p.Groups, group) })
}

// named lists rows of a sort by name, those that are wanted.
func named[R interface {
	record
	GetName() string
}](ctx context.Context, d *Directory, a *iam.Account, sort byte, marker string, limit int, fresh func() R, wanted func(R) bool) (list []R, next string, err error) {
	var after []byte
	if marker != "" {
		after = keyOf(a, sort, marker)
	}
	err = d.pages(ctx, under(a, sort), after, func(r *meta.Row) (bool, error) {
		m := fresh()
		if err := decode(r, m); err != nil {
			return false, err
		}
		switch {
		case !wanted(m):
			return true, nil
		case len(list) == limit:
			next = list[limit-1].GetName()
			return false, nil
		}
		list = append(list, m)
		return true, nil
	})
	return list, next, err
}

// principal reads a user, group or role that the change depends on.
func (ch *change) principal(a *iam.Account, sort Sort, name string) (*Principal, []byte, error) {
	p, key := &Principal{}, keyOf(a, byte(sort), name)
	there, err := ch.read(key, p)
	if err == nil && (!there || p.Name != name) {
		err = noSuch(sort.String(), name)
	}
	return p, key, err
}

// alter changes one principal by fn.
func (d *Directory) alter(ctx context.Context, a *iam.Account, sort Sort, name string, fn func(*change, *Principal) error) error {
	return d.change(ctx, func(ch *change) error {
		p, key, err := ch.principal(a, sort, name)
		if err != nil {
			return err
		}
		if err := fn(ch, p); err != nil {
			return err
		}
		return ch.put(key, p)
	})
}

// Rename gives a user or group another name and path; empty leaves the one there is.
func (d *Directory) Rename(ctx context.Context, a *iam.Account, sort Sort, name, newName, newPath string) error {
	if newName != "" {
		if err := checkName("New"+sort.String()+"Name", newName, nameMax(sort)); err != nil {
			return err
		}
	}
	if newPath != "" {
		if err := checkPath(newPath); err != nil {
			return err
		}
	}
	return d.change(ctx, func(ch *change) error {
		p, key, err := ch.principal(a, sort, name)
		if err != nil {
			return err
		}
		if newPath != "" {
			p.Path = newPath
		}
		if newName == "" || newName == name {
			return ch.put(key, p)
		}
		if sort == Group {
			// Users name their groups: a group that has some keeps its name.
			ch.retire(key, counterOf(a, byte(Group), name))
		} else {
			ch.drop(key)
		}
		target := keyOf(a, byte(sort), newName)
		if string(target) != string(key) {
			if there, err := ch.read(target, &Principal{}); err != nil || there {
				return cmpErr(err, exists(sort.String(), newName))
			}
		}
		p.Name = newName
		for _, id := range p.Keys {
			k := &AccessKey{}
			if there, err := ch.read(accessKeyRow(id), k); err != nil || !there {
				return cmpErr(err, noSuch("access key", id))
			}
			k.User = newName
			if err := ch.put(accessKeyRow(id), k); err != nil {
				return err
			}
		}
		return ch.put(target, p)
	})
}

// Delete deletes a user, group or role that has nothing any more: no keys, no policies,
// no groups, no members.
func (d *Directory) Delete(ctx context.Context, a *iam.Account, sort Sort, name string) error {
	return d.change(ctx, func(ch *change) error {
		p, key, err := ch.principal(a, sort, name)
		switch {
		case err != nil:
			return err
		case len(p.Keys) > 0:
			return s3.E(s3.DeleteConflict, "Cannot delete entity, must delete access keys first.")
		case len(p.Inline) > 0:
			return s3.E(s3.DeleteConflict, "Cannot delete entity, must delete policies first.")
		case len(p.Attached) > 0:
			return s3.E(s3.DeleteConflict, "Cannot delete entity, must detach all policies first.")
		case len(p.Groups) > 0:
			return s3.E(s3.DeleteConflict, "Cannot delete entity, must remove users from group first.")
		}
		if p.Boundary != "" {
			ch.released(a, p.Boundary)
		}
		if sort == Group {
			ch.retire(key, counterOf(a, byte(Group), name))
		} else {
			ch.drop(key)
		}
		return nil
	})
}

// UpdateRole sets the description and the session length of a role; nil leaves it.
func (d *Directory) UpdateRole(ctx context.Context, a *iam.Account, name string, description *string, secondsMax *uint32) error {
	return d.alter(ctx, a, Role, name, func(_ *change, p *Principal) error {
		if description != nil {
			p.Description = *description
		}
		if secondsMax != nil {
			p.SessionSecondsMax = *secondsMax
		}
		return checkRole(p)
	})
}

// SetTrust says who may assume a role.
func (d *Directory) SetTrust(ctx context.Context, a *iam.Account, name, text string) error {
	return d.alter(ctx, a, Role, name, func(_ *change, p *Principal) error {
		p.Trust = text
		return checkRole(p)
	})
}

// PutInline gives a principal a policy of its own under a name, in place of an older one.
func (d *Directory) PutInline(ctx context.Context, a *iam.Account, sort Sort, name, policyName, text string) error {
	if err := checkName("PolicyName", policyName, otherNameMax); err != nil {
		return err
	}
	if err := checkDocument(text, policy.Identity, inlineMax[sort]); err != nil {
		return err
	}
	return d.alter(ctx, a, sort, name, func(_ *change, p *Principal) error {
		at, found := findInline(p, policyName)
		if found {
			p.Inline[at].Text = text
		} else {
			p.Inline = slices.Insert(p.Inline, at, &Document{Name: policyName, Text: text})
		}
		sum := 0
		for _, doc := range p.Inline {
			sum += policy.Solid([]byte(doc.Text))
		}
		if sum > inlineMax[sort] {
			return s3.E(s3.LimitExceeded, limitText("Maximum policy size of %d bytes exceeded for %s %s", inlineMax[sort], sort.String(), name))
		}
		return nil
	})
}

func findInline(p *Principal, name string) (int, bool) {
	return slices.BinarySearchFunc(p.Inline, name, func(doc *Document, n string) int { return strings.Compare(doc.Name, n) })
}

// Inline returns the text of a policy of a principal's own.
func (d *Directory) Inline(ctx context.Context, a *iam.Account, sort Sort, name, policyName string) (string, error) {
	p, err := d.Get(ctx, a, sort, name)
	if err != nil {
		return "", err
	}
	at, found := findInline(p, policyName)
	if !found {
		return "", noSuch(sort.String()+" policy", policyName)
	}
	return p.Inline[at].Text, nil
}

// DeleteInline takes a policy of its own from a principal.
func (d *Directory) DeleteInline(ctx context.Context, a *iam.Account, sort Sort, name, policyName string) error {
	return d.alter(ctx, a, sort, name, func(_ *change, p *Principal) error {
		at, found := findInline(p, policyName)
		if !found {
			return noSuch(sort.String()+" policy", policyName)
		}
		p.Inline = slices.Delete(p.Inline, at, at+1)
		return nil
	})
}

// Join puts a user into a group; one that is in it stays.
func (d *Directory) Join(ctx context.Context, a *iam.Account, user, group string) error {
	return d.alter(ctx, a, User, user, func(ch *change, p *Principal) error {
		if _, _, err := ch.principal(a, Group, group); err != nil {
			return err
		}
		at, found := slices.BinarySearch(p.Groups, group)
		switch {
		case found:
			return nil
		case len(p.Groups) >= GroupsMax:
			return s3.E(s3.LimitExceeded, limitText("Cannot exceed quota for GroupsPerUser: %d", GroupsMax))
		}
		p.Groups = slices.Insert(p.Groups, at, group)
		ch.count(counterOf(a, byte(Group), group), 1)
		return nil
	})
}

// Leave takes a user out of a group.
func (d *Directory) Leave(ctx context.Context, a *iam.Account, user, group string) error {
	return d.alter(ctx, a, User, user, func(ch *change, p *Principal) error {
		at, found := slices.BinarySearch(p.Groups, group)
		if !found {
			return noSuch("group of the user", group)
		}
		p.Groups = slices.Delete(p.Groups, at, at+1)
		ch.count(counterOf(a, byte(Group), group), -1)
		return nil
	})
}
