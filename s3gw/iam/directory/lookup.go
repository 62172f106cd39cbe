package directory

import (
	"context"
	"encoding/hex"
	"errors"
	"strings"
	"sync"
	"time"

	"ashlar"
	"ashlar/s3gw/iam"
	"ashlar/s3gw/iam/session"
	"ashlar/s3gw/policy"
	"ashlar/s3gw/sigv4"
)

const (
	// CacheFor is how old what Lookup answers may be.
	CacheFor = 2 * time.Second
	// cacheMax bounds what is remembered, loadsMax how many keys are read at a time:
	// nobody needs credentials to make us look for a key.
	cacheMax  = 8192
	loadsMax  = 64
	textsMax  = 4096
	tokenPart = "\x00"
)

// Lookup implements sigv4.Credentials: the holder is an *iam.Identity.
func (d *Directory) Lookup(ctx context.Context, accessKey, token string) (sigv4.Credential, error) {
	cred, err := d.Static.Lookup(ctx, accessKey, token)
	if err != sigv4.ErrUnknownKey {
		return cred, err
	}
	switch {
	case strings.HasPrefix(accessKey, session.Prefix):
		if token == "" || len(token) > session.TokenBytesMax {
			return sigv4.Credential{}, sigv4.ErrInvalidToken
		}
	case !isAccessKey(accessKey):
		return sigv4.Credential{}, sigv4.ErrUnknownKey
	case token != "":
		return sigv4.Credential{}, sigv4.ErrInvalidToken
	}
	return d.cache.get(ctx, d.clock, accessKey+tokenPart+token, func(ctx context.Context) (sigv4.Credential, time.Time, error) {
		if token != "" {
			return d.loadSession(ctx, accessKey, token)
		}
		cred, err := d.loadKey(ctx, accessKey)
		return cred, time.Time{}, err
	})
}

// cache remembers credentials, and which keys there are not, for CacheFor.
type cache struct {
	loads chan struct{}
	mu    struct {
		sync.Mutex
		entries map[string]*entry
		cleared uint64
	}
}

// entry is one answer; it is there when done is closed.
type entry struct {
	done    chan struct{}
	until   time.Time // guarded by done
	expires time.Time // of a session
	cred    sigv4.Credential
	err     error
}

// clear forgets everything, also what is being read now.
func (c *cache) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.mu.entries)
	c.mu.cleared++
}

// get returns what is remembered under name, or loads it, once for all who ask at the
// same time. An answer that could not be had is not remembered.
func (c *cache) get(ctx context.Context, clock func() time.Time, name string, load func(context.Context) (sigv4.Credential, time.Time, error)) (sigv4.Credential, error) {
	for {
		c.mu.Lock()
		e := c.mu.entries[name]
		mine := e == nil
		if mine {
			e = &entry{done: make(chan struct{})}
			c.insertLocked(name, e, clock())
		}
		c.mu.Unlock()
		if mine {
			return c.load(ctx, clock, name, e, load)
		}
		select {
		case <-e.done:
		case <-ctx.Done():
			return sigv4.Credential{}, ashlar.E("directory: lookup", "", ashlar.Unavailable, ctx.Err())
		}
		now := clock()
		switch {
		case !e.expires.IsZero() && !now.Before(e.expires):
			return sigv4.Credential{}, sigv4.ErrExpiredToken
		case e.err != nil && !definite(e.err):
			return sigv4.Credential{}, e.err
		case now.Before(e.until):
			return e.cred, e.err
		}
		c.remove(name, e)
	}
}

func (c *cache) load(ctx context.Context, clock func() time.Time, name string, e *entry, load func(context.Context) (sigv4.Credential, time.Time, error)) (sigv4.Credential, error) {
	defer close(e.done)
	e.until = clock().Add(CacheFor) // from before the reads: what they found is no older
	// Others wait for this answer: it does not end with the one who asked first.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readTimeout)
	defer cancel()
	select {
	case c.loads <- struct{}{}:
		e.cred, e.expires, e.err = load(ctx)
		<-c.loads
	case <-ctx.Done():
		e.err = ashlar.E("directory: lookup", "", ashlar.Busy, errors.New("too many keys are being looked for"))
	}
	if e.err != nil && !definite(e.err) {
		c.remove(name, e)
	}
	return e.cred, e.err
}

// definite reports whether an error is an answer.
func definite(err error) bool {
	return errors.Is(err, sigv4.ErrUnknownKey) || errors.Is(err, sigv4.ErrInvalidToken) || errors.Is(err, sigv4.ErrExpiredToken)
}

func (c *cache) remove(name string, e *entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.entries[name] == e {
		delete(c.mu.entries, name)
	}
}

// insertLocked makes room by what is over, or by all.
func (c *cache) insertLocked(name string, e *entry, now time.Time) {
	if len(c.mu.entries) >= cacheMax {
		for n, old := range c.mu.entries {
			select {
			case <-old.done:
				if !now.Before(old.until) {
					delete(c.mu.entries, n)
				}
			default:
			}
		}
	}
	if c.mu.entries == nil || len(c.mu.entries) >= cacheMax {
		c.mu.entries = map[string]*entry{}
	}
	c.mu.entries[name] = e
}

// loadKey reads what a permanent key stands for.
func (d *Directory) loadKey(ctx context.Context, accessKey string) (cred sigv4.Credential, err error) {
	k := &AccessKey{}
	version, err := d.get(ctx, accessKeyRow(accessKey), k)
	if err != nil {
		return cred, err
	}
	a := d.Account(hex.EncodeToString(k.Account))
	if version == 0 || !k.Active || a == nil {
		return cred, sigv4.ErrUnknownKey
	}
	u := &Principal{}
	if version, err = d.get(ctx, keyOf(a, byte(User), k.User), u); err != nil {
		return cred, err
	}
	if version == 0 || u.Id != k.UserId {
		return cred, sigv4.ErrUnknownKey
	}
	raw, err := d.open(ctx, k.Secret, accessKey)
	if err != nil {
		return cred, err
	}
	who := &iam.Identity{Kind: iam.User, Account: a, ARN: iam.ARN(a, "user", u.Path, u.Name), Name: u.Name, ID: u.Id}
	if err := d.empower(ctx, a, u, who); err != nil {
		return cred, err
	}
	for _, name := range u.Groups {
		g := &Principal{}
		if _, err := d.get(ctx, keyOf(a, byte(Group), name), g); err != nil {
			return cred, err
		}
		list, err := d.policiesOf(ctx, a, g)
		if err != nil {
			return cred, err
		}
		who.Policies = append(who.Policies, list...)
	}
	return sigv4.Credential{Secret: secretText(raw), Account: a.Canonical, Holder: who}, nil
}

// loadSession opens a token and reads what it stands for now.
func (d *Directory) loadSession(ctx context.Context, accessKey, token string) (cred sigv4.Credential, expires time.Time, err error) {
	secret, err := d.sessionSecret(ctx, false)
	if err == session.ErrInvalid {
		err = sigv4.ErrInvalidToken
	}
	if err != nil {
		return cred, expires, err
	}
	claims, keys, err := session.Open(secret, accessKey, token)
	if err != nil {
		return cred, expires, sigv4.ErrInvalidToken
	}
	expires = time.Unix(claims.Expires, 0)
	if !d.clock().Before(expires) {
		return cred, expires, sigv4.ErrExpiredToken
	}
	a := d.Account(claims.Account)
	if a == nil {
		return cred, expires, sigv4.ErrInvalidToken
	}
	who, err := d.claimed(ctx, a, &claims)
	if err != nil {
		return cred, expires, err
	}
	who.Issued, who.Provider = time.Unix(claims.Issued, 0), claims.Provider
	return sigv4.Credential{Secret: keys.SecretKey, Account: a.Canonical, Holder: who}, expires, nil
}

// claimed returns whom a session acts for, as that one is now.
func (d *Directory) claimed(ctx context.Context, a *iam.Account, claims *session.Claims) (*iam.Identity, error) {
	var who iam.Identity
	switch claims.Sort {
	case session.OfRoot, session.OfUser:
		// Such a session is as good as the key that it was made with, and not better.
		parent, err := d.Static.Lookup(ctx, claims.Parent, "")
		if err == sigv4.ErrUnknownKey && claims.Sort == session.OfUser {
			parent, err = d.loadKey(ctx, claims.Parent)
		}
		if errors.Is(err, sigv4.ErrUnknownKey) {
			err = sigv4.ErrInvalidToken
		}
		if err != nil {
			return nil, err
		}
		who = *parent.Holder.(*iam.Identity)
		who.Plain = true
		if who.Account != a {
			return nil, sigv4.ErrInvalidToken
		}
	case session.OfRole:
		p := &Principal{}
		version, err := d.get(ctx, keyOf(a, byte(Role), claims.Name), p)
		if err != nil {
			return nil, err
		}
		if version == 0 || p.Id != claims.ID {
			return nil, sigv4.ErrInvalidToken
		}
		who = iam.Identity{Kind: iam.Session, Account: a, ARN: SessionARN(a, p.Name, claims.Session), Role: iam.ARN(a, "role", p.Path, p.Name), ID: p.Id + ":" + claims.Session}
		if err := d.empower(ctx, a, p, &who); err != nil {
			return nil, err
		}
	default:
		return nil, sigv4.ErrInvalidToken
	}
	if !claims.Scoped {
		return &who, nil
	}
	var err error
	who.Scope, err = d.documents(ctx, a, claims.Scope, claims.Attached)
	return &who, err
}

// SessionARN names a session of a role.
func SessionARN(a *iam.Account, role, name string) string {
	return "arn:aws:sts::" + a.ID + ":assumed-role/" + role + "/" + name
}

// empower gives an identity its principal's own policies and its boundary.
func (d *Directory) empower(ctx context.Context, a *iam.Account, p *Principal, who *iam.Identity) (err error) {
	if who.Policies, err = d.policiesOf(ctx, a, p); err != nil || p.Boundary == "" {
		return err
	}
	bound, err := d.documents(ctx, a, nil, []string{p.Boundary})
	if err == nil {
		who.Boundary = bound[0]
	}
	return err
}

func (d *Directory) policiesOf(ctx context.Context, a *iam.Account, p *Principal) ([]*policy.Policy, error) {
	var inline []string
	for _, doc := range p.Inline {
		inline = append(inline, doc.Text)
	}
	return d.documents(ctx, a, inline, p.Attached)
}

// documents reads policies: texts, and managed ones by how they are attached. The list
// is never nil. A policy that is gone or cannot be read denies everything.
func (d *Directory) documents(ctx context.Context, a *iam.Account, texts, attached []string) ([]*policy.Policy, error) {
	list := make([]*policy.Policy, 0, len(texts)+len(attached))
	for _, text := range texts {
		list = append(list, d.texts.parse(text))
	}
	for _, name := range attached {
		text := ""
		if every, ok := strings.CutPrefix(name, builtinMark); ok {
			text = builtin[every]
		} else {
			p := &Policy{}
			if _, err := d.get(ctx, keyOf(a, sortPolicy, name), p); err != nil {
				return nil, err
			}
			text = p.Version(p.Current).GetText()
		}
		list = append(list, d.texts.parse(text))
	}
	return list, nil
}

// lockedOut stands for a policy that cannot be read.
var lockedOut, _ = policy.Parse([]byte(`{"Statement":{"Effect":"Deny","Action":"*","Resource":"*"}}`), policy.Identity, "")

// parsed remembers what texts mean: a policy's text never changes its meaning.
type parsed struct {
	mu sync.Mutex
	of map[string]*policy.Policy // guarded by mu
}

func (m *parsed) parse(text string) *policy.Policy {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.of[text]; p != nil {
		return p
	}
	p, err := policy.Parse([]byte(text), policy.Identity, "")
	if err != nil {
		p = lockedOut
	}
	if m.of == nil || len(m.of) >= textsMax {
		m.of = map[string]*policy.Policy{}
	}
	m.of[text] = p
	return p
}
