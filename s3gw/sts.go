package s3gw

import (
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"ashlar/s3gw/iam"
	"ashlar/s3gw/iam/directory"
	"ashlar/s3gw/iam/oidc"
	"ashlar/s3gw/iam/session"
	"ashlar/s3gw/policy"
	"ashlar/s3gw/s3"
)

var stsActions = []action{
	{name: "GetCallerIdentity", sts: true, free: true, serve: getCallerIdentity},
	{name: "GetSessionToken", sts: true, free: true, params: "DurationSeconds", serve: getSessionToken},
	{name: "AssumeRole", sts: true, free: true, params: "RoleArn! RoleSessionName! DurationSeconds ExternalId Policy PolicyArns.member.#.arn", serve: assumeRole},
	{name: "AssumeRoleWithWebIdentity", sts: true, free: true, anonymous: true,
		params: "RoleArn! RoleSessionName! WebIdentityToken! DurationSeconds Policy PolicyArns.member.#.arn", serve: assumeWithWebIdentity},
}

// Lengths of sessions, in seconds.
const (
	ownSessionDefault = 43200
	ownSessionMax     = 129600
	// chainedSessionMax bounds a role that a session of a role assumes.
	chainedSessionMax = 3600
)

// getCallerIdentity says to anybody who has credentials for whom they act.
func getCallerIdentity(c *call, q *query, w *s3.Writer) error {
	w.Text("Arn", c.who.ARN)
	w.Text("UserId", c.who.ID)
	w.Text("Account", q.account.ID)
	return nil
}

// getSessionToken gives a user, or the root, temporary credentials with its rights.
func getSessionToken(c *call, q *query, w *s3.Writer) error {
	sort, longest := session.OfUser, ownSessionMax
	switch c.who.Kind {
	case iam.Root:
		sort, longest = session.OfRoot, directory.SessionSecondsDefault
	case iam.User:
	default:
		return s3.E(s3.AccessDenied, "Cannot call GetSessionToken with session credentials")
	}
	seconds, err := q.number("DurationSeconds", min(ownSessionDefault, longest), directory.SessionSecondsMin, ownSessionMax)
	if err != nil {
		return err
	}
	return c.mint(w, session.Claims{Sort: sort, Account: q.account.Canonical, Parent: c.auth.AccessKey}, min(seconds, longest))
}

// mint makes credentials that hold from now on, and writes them.
func (c *call) mint(w *s3.Writer, claims session.Claims, seconds int) error {
	now := c.s.now()
	claims.Issued, claims.Expires = now.Unix(), now.Unix()+int64(seconds)
	cred, err := c.s.directory.Mint(c.ctx, claims)
	if err != nil {
		return err
	}
	w.Open("Credentials")
	w.Raw("AccessKeyId", cred.AccessKey)
	w.Raw("SecretAccessKey", cred.SecretKey)
	w.Raw("SessionToken", cred.Token)
	w.Raw("Expiration", queryTime(claims.Expires*int64(time.Second)))
	w.Close("Credentials")
	return nil
}

// assumption is a role that somebody wants to act for.
type assumption struct {
	arn, name string
	account   *iam.Account
	role      *directory.Principal
	who       policy.Principal
	values    map[string][]string
}

// judgeTrust says what the role's trust policy says; a role that is not there trusts nobody.
func (c *call) judgeTrust(a *assumption, action string, own func(*policy.Request) policy.Decision) (said, ours policy.Decision, err error) {
	if a.role == nil {
		return policy.None, policy.None, nil
	}
	trust, err := policy.Parse([]byte(a.role.Trust), policy.Trust, "")
	if err != nil {
		return policy.None, policy.None, nil
	}
	a.values["sts:rolesessionname"] = []string{a.name}
	a.values["aws:resourceaccount"] = []string{a.account.ID}
	var unknown error
	r := &policy.Request{Principal: a.who, Action: action, Resource: a.arn,
		Values: c.conditions(&right{action: action, arn: a.arn, values: a.values}, &unknown)}
	said = trust.Evaluate(r)
	if own != nil {
		ours = own(r)
	}
	return said, ours, unknown
}

// assumeRole gives a user or session temporary credentials of a role that trusts it.
func assumeRole(c *call, q *query, w *s3.Writer) error {
	if c.who.Kind == iam.Root {
		return s3.E(s3.AccessDenied, "Roles may not be assumed by root accounts.")
	}
	a, err := c.assumption(q)
	if err != nil {
		return err
	}
	a.who = c.who.Principal()
	if v, ok := q.values["ExternalId"]; ok {
		a.values["sts:externalid"] = []string{v}
	}
	admitted := false
	said, own, err := c.judgeTrust(a, "sts:AssumeRole", func(r *policy.Request) policy.Decision {
		admitted = c.who.Admits(r)
		return c.who.Judge(r)
	})
	if err != nil {
		return err
	}
	switch {
	case said == policy.Deny, said == policy.None, own == policy.Deny, !admitted,
		own != policy.Allow && !(said == policy.Allow && a.account.Canonical == q.account.Canonical): // the role's own account trusts its user by name
		return notAuthorized(c.who, "sts:AssumeRole", a.arn)
	}
	longest := int(a.role.SessionSecondsMax)
	if c.who.Kind == iam.Session {
		longest = min(longest, chainedSessionMax)
	}
	return c.giveRole(q, w, a, longest, "", nil)
}

// assumption reads what is asked for.
func (c *call) assumption(q *query) (a *assumption, err error) {
	a = &assumption{arn: q.get("RoleArn"), name: q.get("RoleSessionName"), values: map[string][]string{}}
	if !validSessionName(a.name) {
		return nil, s3.E(s3.ValidationError, "RoleSessionName must be 2 to 64 characters: letters, digits and +=,.@_-")
	}
	a.account, a.role, err = c.s.directory.RoleOf(c.ctx, a.arn)
	return a, err
}

func validSessionName(name string) bool {
	for _, r := range name {
		if (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && !strings.ContainsRune("_+=,.@-", r) {
			return false
		}
	}
	return len(name) >= 2 && len(name) <= 64
}

// giveRole mints the session of a role that was judged.
func (c *call) giveRole(q *query, w *s3.Writer, a *assumption, longest int, provider string, further func()) error {
	seconds, err := q.number("DurationSeconds", min(directory.SessionSecondsDefault, longest), directory.SessionSecondsMin, directory.SessionSecondsMax)
	if err != nil {
		return err
	}
	if seconds > longest {
		return s3.E(s3.ValidationError, "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
	}
	claims := session.Claims{Sort: session.OfRole, Account: a.account.Canonical, Name: a.role.Name, ID: a.role.Id, Session: a.name, Provider: provider}
	arns := q.list("PolicyArns.member.", ".arn")
	if err := c.s.directory.Scope(c.ctx, a.account, &claims, q.get("Policy"), arns); err != nil {
		return err
	}
	if err := c.mint(w, claims, seconds); err != nil {
		return err
	}
	w.Open("AssumedRoleUser")
	w.Text("Arn", directory.SessionARN(a.account, a.role.Name, a.name))
	w.Text("AssumedRoleId", a.role.Id+":"+a.name)
	w.Close("AssumedRoleUser")
	if further != nil {
		further()
	}
	return nil
}

// assumeWithWebIdentity gives whoever brings a token of an identity provider temporary
// credentials of a role that trusts that provider. A token that is not believed gets the
// same answer whatever role and account it was sent with.
func assumeWithWebIdentity(c *call, q *query, w *s3.Writer) error {
	c.who = iam.Unknown // whoever signed it: the token alone counts
	address := c.remoteAddress()
	if !c.s.failures.may(address, c.s.now()) {
		return s3.E(s3.Throttling, "")
	}
	err := c.believe(q, w)
	if e := s3.Classify(err); e != nil && e.Code.Status() < 500 && e.Code != s3.IDPCommunicationError {
		c.s.failures.note(address, c.s.now())
	}
	return err
}

func (c *call) believe(q *query, w *s3.Writer) error {
	a, err := c.assumption(q)
	if err != nil {
		return err
	}
	issuer, err := oidc.Issuer(q.get("WebIdentityToken"))
	if err != nil {
		return err
	}
	var audiences []string
	if a.account != nil {
		p, err := c.s.directory.Provider(c.ctx, a.account, issuer)
		switch {
		case err == nil && strings.TrimSuffix(p.Url, "/") == strings.TrimSuffix(issuer, "/"): // its scheme too
			audiences = p.Audiences
		case err == nil:
		case s3.Classify(err).Code != s3.NoSuchEntity:
			return err
		}
	}
	token, err := c.s.tokens.Verify(c.ctx, q.get("WebIdentityToken"), issuer, audiences)
	if err != nil {
		return err
	}
	provider := providerARN(a.account, issuer)
	a.who = policy.Principal{ARNs: []string{provider}}
	a.values["aws:federatedprovider"] = []string{provider}
	for name, values := range token.Claims {
		a.values[strings.ToLower(directory.ProviderName(issuer))+":"+name] = values
	}
	said, _, err := c.judgeTrust(a, "sts:AssumeRoleWithWebIdentity", nil)
	if err != nil {
		return err
	}
	if said != policy.Allow {
		return s3.E(s3.AccessDenied, "Not authorized to perform sts:AssumeRoleWithWebIdentity")
	}
	return c.giveRole(q, w, a, int(a.role.SessionSecondsMax), provider, func() {
		w.Text("SubjectFromWebIdentityToken", token.Subject)
		w.Text("Audience", token.Audience)
		w.Text("Provider", issuer)
	})
}

// remoteAddress is who sends, as far as that is known: a network of IPv6 is one.
func (c *call) remoteAddress() string {
	host, _, err := net.SplitHostPort(c.r.RemoteAddr)
	if err != nil {
		host = c.r.RemoteAddr
	}
	if a, err := netip.ParseAddr(host); err == nil && a.Is6() && !a.Is4In6() {
		if p, err := a.Prefix(64); err == nil {
			return p.String()
		}
	}
	return host
}

// failures bound how often an address may try tokens that are refused.
type failures struct {
	mu sync.Mutex
	of map[string]*rate.Limiter // guarded by mu
}

const (
	failuresPerSecond = 5
	failuresBurst     = 50
	failuresMax       = 4096 // addresses that are remembered
)

// may reports whether an address may try once more.
func (f *failures) may(address string, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.of[address]
	return l == nil || l.TokensAt(now) >= 1
}

func (f *failures) note(address string, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.of[address]
	if l == nil {
		if f.of == nil || len(f.of) >= failuresMax {
			f.of = map[string]*rate.Limiter{}
		}
		l = rate.NewLimiter(failuresPerSecond, failuresBurst)
		f.of[address] = l
	}
	l.AllowN(now, 1)
}
