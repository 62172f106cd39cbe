package directory

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ashlar"
	"ashlar/daemon/meta"
	"ashlar/daemon/meta/metatest"
	"ashlar/s3gw/iam"
	"ashlar/s3gw/iam/session"
	"ashlar/s3gw/keyring"
	"ashlar/s3gw/policy"
	"ashlar/s3gw/s3"
	"ashlar/s3gw/sigv4"
	"ashlar/s3gw/sse"
)

const allowAll = `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}`

// counted is a metadata store that counts its reads, and fails when it is told to.
type counted struct {
	meta.Store
	gets atomic.Int64
	away atomic.Bool
}

func (c *counted) Get(ctx context.Context, s ashlar.ShardID, key []byte) (meta.Row, error) {
	c.gets.Add(1)
	if c.away.Load() {
		return meta.Row{}, ashlar.E("test", "", ashlar.Unavailable, nil)
	}
	return c.Store.Get(ctx, s, key)
}

// world is two directories, as two gateways have them, over the same metadata.
type world struct {
	meta     *counted
	one, two *Directory
	home     *iam.Account
	now      atomic.Int64
}

func newWorld(t testing.TB, keys ...string) *world {
	t.Helper()
	w := &world{meta: &counted{Store: metatest.NewModel()}}
	w.now.Store(time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC).UnixNano())
	accounts, err := iam.NewStatic(iam.KeyConfig{AccessKey: "ROOT", SecretKey: "root-secret"}, []iam.AccountConfig{{ID: "222", Keys: []iam.KeyConfig{{AccessKey: "OTHER", SecretKey: "x"}}}})
	if err != nil {
		t.Fatal(err)
	}
	opt := Options{Clock: func() time.Time { return time.Unix(0, w.now.Load()) }}
	if len(keys) > 0 {
		ring, err := keyring.Parse([]byte(keys[0]))
		if err != nil {
			t.Fatal(err)
		}
		opt.Keys = ring
	}
	w.one, w.two = New(w.meta, accounts, opt), New(w.meta, accounts, opt)
	w.home = w.one.AccountByID(iam.RootID)
	return w
}

func (w *world) pass(d time.Duration) { w.now.Add(int64(d)) }

func (w *world) user(t testing.TB, name string) (key, secret string) {
	t.Helper()
	if _, err := w.one.Create(t.Context(), w.home, User, &Principal{Name: name, Path: "/"}); err != nil {
		t.Fatal(err)
	}
	key, secret, _, err := w.one.CreateKey(t.Context(), w.home, name)
	if err != nil {
		t.Fatal(err)
	}
	return key, secret
}

func codeOf(err error) string {
	var e *s3.Error
	if errors.As(err, &e) {
		return e.Code.String()
	}
	if err != nil {
		return err.Error()
	}
	return "OK"
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func want(t testing.TB, err error, code string) {
	t.Helper()
	if codeOf(err) != code {
		t.Errorf("got %v, want %s", err, code)
	}
}

// may asks a directory whether a key may do something.
func may(t testing.TB, d *Directory, key, token, action, resource string) policy.Decision {
	t.Helper()
	cred, err := d.Lookup(t.Context(), key, token)
	must(t, err)
	who := cred.Holder.(*iam.Identity)
	return who.Judge(&policy.Request{Principal: who.Principal(), Action: action, Resource: resource})
}

func TestAUserHasWhatItsPoliciesSay(t *testing.T) {
	w := newWorld(t)
	ctx, d := t.Context(), w.one
	key, secret := w.user(t, "ann")
	cred, err := d.Lookup(ctx, key, "")
	must(t, err)
	if cred.Secret != secret || len(secret) != 40 || cred.Account != w.home.Canonical {
		t.Fatal(cred)
	}
	const object = "arn:aws:s3:::b/k"
	check := func(what string, want policy.Decision) {
		t.Helper()
		if got := may(t, d, key, "", "s3:GetObject", object); got != want {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	check("without a policy", policy.None)
	must(t, d.PutInline(ctx, w.home, User, "ann", "own", `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"s3:GetObject","Resource":"arn:aws:s3:::b/*"}}`))
	check("its own", policy.Allow)
	must(t, d.DeleteInline(ctx, w.home, User, "ann", "own"))
	check("taken back", policy.None)

	_, err = d.Create(ctx, w.home, Group, &Principal{Name: "readers", Path: "/"})
	must(t, err)
	must(t, d.PutInline(ctx, w.home, Group, "readers", "read", allowAll))
	must(t, d.Join(ctx, w.home, "ann", "readers"))
	check("the group's", policy.Allow)
	p, err := d.CreatePolicy(ctx, w.home, "no", "/", "", `{"Version":"2012-10-17","Statement":{"Effect":"Deny","Action":"s3:GetObject","Resource":"*"}}`)
	must(t, err)
	arn := iam.ARN(w.home, "policy", p.Path, p.Name)
	must(t, d.Attach(ctx, w.home, Group, "readers", arn))
	check("denied by the group's managed one", policy.Deny)
	_, err = d.AddVersion(ctx, w.home, arn, `{"Version":"2012-10-17","Statement":{"Effect":"Deny","Action":"s3:PutObject","Resource":"*"}}`, true)
	must(t, err)
	check("its new version", policy.Allow)
	must(t, d.Leave(ctx, w.home, "ann", "readers"))
	check("out of the group", policy.None)

	must(t, d.Attach(ctx, w.home, User, "ann", builtinARN+"AdministratorAccess"))
	check("a policy of every account", policy.Allow)
	bound, err := d.CreatePolicy(ctx, w.home, "bound", "/", "", `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"s3:PutObject","Resource":"*"}}`)
	must(t, err)
	must(t, d.SetBoundary(ctx, w.home, User, "ann", iam.ARN(w.home, "policy", bound.Path, bound.Name)))
	check("outside of its boundary", policy.None)
	if may(t, d, key, "", "s3:PutObject", object) != policy.Allow {
		t.Error("the boundary takes more than it should")
	}
	want(t, d.DeletePolicy(ctx, w.home, iam.ARN(w.home, "policy", "/", "bound")), "DeleteConflict")
	must(t, d.SetBoundary(ctx, w.home, User, "ann", ""))
	check("without a boundary", policy.Allow)
	must(t, d.DeletePolicy(ctx, w.home, iam.ARN(w.home, "policy", "/", "bound")))
}

// TestADeletedKeyStops: at the gateway that was told at once, at others within CacheFor,
// and not by asking the metadata for every request.
func TestADeletedKeyStops(t *testing.T) {
	for name, end := range map[string]func(w *world, key string) error{
		"deleted":      func(w *world, key string) error { return w.one.DeleteKey(context.Background(), w.home, "ann", key) },
		"switched off": func(w *world, key string) error { return w.one.SetKey(context.Background(), w.home, "ann", key, false) },
	} {
		w := newWorld(t)
		key, _ := w.user(t, "ann")
		for _, d := range []*Directory{w.one, w.two} {
			_, err := d.Lookup(t.Context(), key, "")
			must(t, err)
		}
		before := w.meta.gets.Load()
		for range 100 {
			_, err := w.two.Lookup(t.Context(), key, "")
			must(t, err)
		}
		if n := w.meta.gets.Load() - before; n != 0 {
			t.Errorf("%s: %d reads for 100 requests", name, n)
		}
		must(t, end(w, key))
		if _, err := w.one.Lookup(t.Context(), key, ""); err != sigv4.ErrUnknownKey {
			t.Errorf("%s, at the same gateway: %v", name, err)
		}
		w.pass(CacheFor)
		if _, err := w.two.Lookup(t.Context(), key, ""); err != sigv4.ErrUnknownKey {
			t.Errorf("%s, at another gateway: %v", name, err)
		}
	}
}

// TestAUserThatIsMadeAgainIsAnother: a key and a session belong to the one they were made for.
func TestAUserThatIsMadeAgainIsAnother(t *testing.T) {
	w := newWorld(t)
	ctx, d := t.Context(), w.one
	role := &Principal{Name: "r", Path: "/", SessionSecondsMax: 3600, Trust: `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"sts:AssumeRole","Principal":{"AWS":"222"}}}`}
	_, err := d.Create(ctx, w.home, Role, role)
	must(t, err)
	now := d.clock().Unix()
	cred, err := d.Mint(ctx, session.Claims{Sort: session.OfRole, Account: w.home.Canonical, Name: "r", ID: role.Id, Session: "s", Issued: now, Expires: now + 900})
	must(t, err)
	if _, err := w.two.Lookup(ctx, cred.AccessKey, cred.Token); err != nil {
		t.Fatal(err)
	}
	must(t, d.Delete(ctx, w.home, Role, "r"))
	again := &Principal{Name: "r", Path: "/", SessionSecondsMax: 3600, Trust: role.Trust}
	_, err = d.Create(ctx, w.home, Role, again)
	must(t, err)
	if _, err := d.Lookup(ctx, cred.AccessKey, cred.Token); err != sigv4.ErrInvalidToken {
		t.Error("the session of a role that is gone:", err)
	}
}

func TestSessions(t *testing.T) {
	w := newWorld(t)
	ctx, d := t.Context(), w.one
	key, _ := w.user(t, "ann")
	must(t, d.Attach(ctx, w.home, User, "ann", builtinARN+"AmazonS3FullAccess"))
	now := d.clock().Unix()
	mint := func(c session.Claims) session.Credentials {
		t.Helper()
		c.Account, c.Issued, c.Expires = w.home.Canonical, now, now+900
		cred, err := d.Mint(ctx, c)
		must(t, err)
		return cred
	}
	plain := mint(session.Claims{Sort: session.OfUser, Parent: key})
	if may(t, w.two, plain.AccessKey, plain.Token, "s3:PutObject", "arn:aws:s3:::b/k") != policy.Allow {
		t.Error("a session of a user is less than the user")
	}
	// A scope is both: what the parent may, and what the scope allows.
	var c session.Claims
	must(t, d.Scope(ctx, w.home, &c, `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":["s3:GetObject","iam:*"],"Resource":"*"}}`, nil))
	c.Sort, c.Parent = session.OfUser, key
	scoped := mint(c)
	for action, want := range map[string]policy.Decision{"s3:GetObject": policy.Allow, "s3:PutObject": policy.None, "iam:CreateUser": policy.None} {
		if got := may(t, d, scoped.AccessKey, scoped.Token, action, "arn:aws:s3:::b/k"); got != want {
			t.Errorf("%s in a scope: %v", action, got)
		}
	}
	if none := mint(session.Claims{Sort: session.OfRoot, Parent: "ROOT", Scoped: true}); may(t, d, none.AccessKey, none.Token, "s3:GetObject", "x") != policy.None {
		t.Error("an empty scope allows")
	}
	for name, bad := range map[string][2]string{
		"another's": {plain.AccessKey, scoped.Token}, "none": {plain.AccessKey, ""}, "of a permanent key": {key, plain.Token}, "of a root key": {"ROOT", plain.Token},
	} {
		if _, err := d.Lookup(ctx, bad[0], bad[1]); err != sigv4.ErrInvalidToken {
			t.Errorf("token %s: %v", name, err)
		}
	}
	for name, claims := range map[string]session.Claims{
		"a sort that is none": {Sort: "admin"}, "a parent that is none": {Sort: session.OfUser, Parent: "AKIA2222222222222222"},
		"the root by a user's key": {Sort: session.OfRoot, Parent: key}, "another account's root": {Sort: session.OfRoot, Parent: "OTHER"},
	} {
		cred := mint(claims)
		if _, err := d.Lookup(ctx, cred.AccessKey, cred.Token); err != sigv4.ErrInvalidToken {
			t.Errorf("%s: %v", name, err)
		}
	}
	must(t, d.DeleteKey(ctx, w.home, "ann", key))
	if _, err := d.Lookup(ctx, plain.AccessKey, plain.Token); err != sigv4.ErrInvalidToken {
		t.Error("a session outlives the key that it was made with:", err)
	}
	root := mint(session.Claims{Sort: session.OfRoot, Parent: "ROOT"})
	if _, err := w.two.Lookup(ctx, root.AccessKey, root.Token); err != nil {
		t.Error(err)
	}
	w.pass(900*time.Second - 1)
	if _, err := w.two.Lookup(ctx, root.AccessKey, root.Token); err != nil {
		t.Error("before its end:", err)
	}
	w.pass(1)
	if _, err := w.two.Lookup(ctx, root.AccessKey, root.Token); err != sigv4.ErrExpiredToken {
		t.Error("remembered beyond its end:", err)
	}
	if _, err := w.one.Lookup(ctx, root.AccessKey, root.Token); err != sigv4.ErrExpiredToken {
		t.Error("at its end:", err)
	}
}

func TestWhatIsInUseStays(t *testing.T) {
	w := newWorld(t)
	ctx, d, a := t.Context(), w.one, w.home
	key, _ := w.user(t, "ann")
	_, err := d.Create(ctx, a, Group, &Principal{Name: "g", Path: "/"})
	must(t, err)
	must(t, d.Join(ctx, a, "ann", "g"))
	must(t, d.Join(ctx, a, "ann", "g")) // a second time changes nothing
	want(t, d.Delete(ctx, a, Group, "g"), "DeleteConflict")
	want(t, d.Rename(ctx, a, Group, "g", "h", ""), "DeleteConflict")
	want(t, d.Delete(ctx, a, User, "ann"), "DeleteConflict")
	must(t, d.DeleteKey(ctx, a, "ann", key))
	want(t, d.Delete(ctx, a, User, "ann"), "DeleteConflict")
	must(t, d.Leave(ctx, a, "ann", "g"))
	want(t, d.Leave(ctx, a, "ann", "g"), "NoSuchEntity")
	must(t, d.PutInline(ctx, a, User, "ann", "p", allowAll))
	want(t, d.Delete(ctx, a, User, "ann"), "DeleteConflict")
	must(t, d.DeleteInline(ctx, a, User, "ann", "p"))
	p, err := d.CreatePolicy(ctx, a, "p", "/x/", "", allowAll)
	must(t, err)
	arn := iam.ARN(a, "policy", p.Path, p.Name)
	must(t, d.Attach(ctx, a, User, "ann", arn))
	want(t, d.DeletePolicy(ctx, a, arn), "DeleteConflict")
	want(t, d.Delete(ctx, a, User, "ann"), "DeleteConflict")
	if n, err := d.Attachments(ctx, a, "p"); n != 1 || err != nil {
		t.Error(n, err)
	}
	must(t, d.Detach(ctx, a, User, "ann", arn))
	must(t, d.DeletePolicy(ctx, a, arn))
	must(t, d.Delete(ctx, a, User, "ann"))
	must(t, d.Rename(ctx, a, Group, "g", "h", ""))
	must(t, d.Delete(ctx, a, Group, "h"))
	page, err := w.meta.Scan(ctx, shard, meta.ScanRequest{Start: []byte("i"), End: []byte("j")})
	must(t, err)
	if len(page.Rows) != 0 {
		t.Errorf("rows are left: %v", page.Rows)
	}
}

func TestRefusals(t *testing.T) {
	w := newWorld(t)
	ctx, d, a := t.Context(), w.one, w.home
	create := func(name, path string) error {
		_, err := d.Create(ctx, a, User, &Principal{Name: name, Path: path})
		return err
	}
	must(t, create("Ann", "/staff/"))
	want(t, create("ann", "/"), "EntityAlreadyExists") // names differ in more than case
	for _, bad := range []string{"", "a b", "a/b", "ä", strings.Repeat("x", 65), "a\x00"} {
		want(t, create(bad, "/"), "ValidationError")
	}
	for _, bad := range []string{"", "x", "/x", "x/", "//", "/ /", "/" + strings.Repeat("x", 512) + "/"} {
		want(t, create("bob", bad), "ValidationError")
	}
	_, err := d.Get(ctx, a, User, "ann")
	want(t, err, "NoSuchEntity")
	for _, bad := range []string{"", "{}", `{"Statement":{"Effect":"Allow","Action":"s3:Fly","Resource":"*"}}`, `{"Statement":{"Effect":"Allow","Principal":"*","Action":"*","Resource":"*"}}`} {
		want(t, d.PutInline(ctx, a, User, "Ann", "p", bad), "MalformedPolicyDocument")
	}
	long := func(n int) string {
		return strings.Replace(allowAll, `"Resource":"*"`, `"Resource":"arn:aws:s3:::`+strings.Repeat("x", n)+`"`, 1)
	}
	want(t, d.PutInline(ctx, a, User, "Ann", "p", long(2048)), "LimitExceeded")
	must(t, d.PutInline(ctx, a, User, "Ann", "p", long(1500)))
	want(t, d.PutInline(ctx, a, User, "Ann", "q", long(1500)), "LimitExceeded") // together
	must(t, d.PutInline(ctx, a, User, "Ann", "p", allowAll+strings.Repeat(" ", 5000)))
	for range KeysMax {
		_, _, _, err := d.CreateKey(ctx, a, "Ann")
		must(t, err)
	}
	_, _, _, err = d.CreateKey(ctx, a, "Ann")
	want(t, err, "LimitExceeded")
	want(t, d.DeleteKey(ctx, a, "Ann", "AKIA2222222222222222"), "NoSuchEntity")
	for _, arn := range []string{"", "x", builtinARN + "Nothing", "arn:aws:iam::222:policy/p", iam.ARN(a, "policy", "/", "none")} {
		want(t, d.Attach(ctx, a, User, "Ann", arn), "NoSuchEntity")
	}
	p, err := d.CreatePolicy(ctx, a, "p", "/x/", "", allowAll)
	must(t, err)
	want(t, d.Attach(ctx, a, User, "Ann", iam.ARN(a, "policy", "/", "p")), "NoSuchEntity") // not its path
	arn := iam.ARN(a, "policy", p.Path, p.Name)
	for range VersionsMax - 1 {
		_, err = d.AddVersion(ctx, a, arn, allowAll, false)
		must(t, err)
	}
	_, err = d.AddVersion(ctx, a, arn, allowAll, false)
	want(t, err, "LimitExceeded")
	want(t, d.DeleteVersion(ctx, a, arn, 1), "DeleteConflict")
	want(t, d.DeletePolicy(ctx, a, arn), "DeleteConflict")
	want(t, d.SetCurrent(ctx, a, arn, 9), "NoSuchEntity")
	must(t, d.SetCurrent(ctx, a, arn, 5))
	must(t, d.DeleteVersion(ctx, a, arn, 1))
	want(t, d.DeletePolicy(ctx, a, builtinARN+"AdministratorAccess"), "AccessDenied")
	role := func(trust string, seconds uint32) error {
		_, err := d.Create(ctx, a, Role, &Principal{Name: "r", Path: "/", Trust: trust, SessionSecondsMax: seconds})
		return err
	}
	trust := `{"Statement":{"Effect":"Allow","Principal":{"AWS":"222"},"Action":"sts:AssumeRole"}}`
	want(t, role("", 3600), "MalformedPolicyDocument")
	want(t, role(allowAll, 3600), "MalformedPolicyDocument")
	want(t, role(trust, 60), "ValidationError")
	must(t, role(trust, 3600))
	want(t, role(trust, 3600), "EntityAlreadyExists")
}

// TestAccountsAreApart: nothing of one account is found in another.
func TestAccountsAreApart(t *testing.T) {
	w := newWorld(t)
	ctx, other := t.Context(), w.one.AccountByID("222")
	key, _ := w.user(t, "ann")
	_, err := w.one.Get(ctx, other, User, "ann")
	want(t, err, "NoSuchEntity")
	want(t, w.one.DeleteKey(ctx, other, "ann", key), "NoSuchEntity")
	if list, _, err := w.one.List(ctx, other, User, "/", "", 10); len(list) != 0 || err != nil {
		t.Error(list, err)
	}
	if a, r, err := w.one.RoleOf(ctx, "arn:aws:iam::333:role/r"); a != nil || r != nil || err != nil {
		t.Error(a, r, err)
	}
}

func TestListsComeInPages(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	for i := range 7 {
		_, err := w.one.Create(ctx, w.home, User, &Principal{Name: fmt.Sprintf("u%d", i), Path: map[bool]string{true: "/a/", false: "/b/"}[i%2 == 0]})
		must(t, err)
	}
	var got []string
	marker := ""
	for pages := 1; ; pages++ {
		list, next, err := w.one.List(ctx, w.home, User, "/a/", marker, 2)
		must(t, err)
		for _, p := range list {
			got = append(got, p.Name)
		}
		if marker = next; marker == "" {
			if pages != 2 {
				t.Error(pages, "pages")
			}
			break
		}
	}
	if strings.Join(got, " ") != "u0 u2 u4 u6" {
		t.Error(got)
	}
}

// TestRacesEndWithOneWinner: a group that is joined and deleted at the same time is
// either gone and has no member, or is there and has one.
func TestRacesEndWithOneWinner(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	_, err := w.one.Create(ctx, w.home, User, &Principal{Name: "ann", Path: "/"})
	must(t, err)
	for range 50 {
		_, err := w.one.Create(ctx, w.home, Group, &Principal{Name: "g", Path: "/"})
		must(t, err)
		var work sync.WaitGroup
		var joined, deleted error
		work.Go(func() { joined = w.one.Join(ctx, w.home, "ann", "g") })
		work.Go(func() { deleted = w.two.Delete(ctx, w.home, Group, "g") })
		work.Wait()
		if (joined == nil) == (deleted == nil) {
			t.Fatalf("joined: %v, deleted: %v", joined, deleted)
		}
		if joined == nil {
			must(t, w.one.Leave(ctx, w.home, "ann", "g"))
			must(t, w.one.Delete(ctx, w.home, Group, "g"))
		}
	}
}

// TestSecretsAreSealed: with a keyring the rows hold no secret, and without it the keys
// are refused, not unknown.
func TestSecretsAreSealed(t *testing.T) {
	k := sse.NewKey()
	w := newWorld(t, "sse-s3 one "+base64.StdEncoding.EncodeToString(k[:]))
	key, secret := w.user(t, "ann")
	cred, err := w.two.Lookup(t.Context(), key, "")
	must(t, err)
	if cred.Secret != secret {
		t.Error("another secret comes back")
	}
	raw, err := base64.StdEncoding.DecodeString(secret)
	must(t, err)
	page, err := w.meta.Scan(t.Context(), shard, meta.ScanRequest{Start: []byte("i"), End: []byte("j")})
	must(t, err)
	for _, r := range page.Rows {
		if bytes.Contains(r.Value, raw) || bytes.Contains(r.Value, []byte(secret)) {
			t.Errorf("row %q holds the secret", r.Key)
		}
	}
	without := New(w.meta, w.one.Static, Options{})
	if _, err := without.Lookup(t.Context(), key, ""); ashlar.KindOf(err) != ashlar.Unavailable {
		t.Error("without the keyring:", err)
	}
	_, keys, err := w.one.Keys(t.Context(), w.home, "ann")
	must(t, err)
	if len(keys) != 1 || keys[0].Secret != nil {
		t.Error("a list holds a secret")
	}
}

// TestMetadataAway: users are refused while nobody can say whether they are still there;
// the root goes on, and nothing wrong is remembered.
func TestMetadataAway(t *testing.T) {
	w := newWorld(t)
	key, _ := w.user(t, "ann")
	w.meta.away.Store(true)
	if _, err := w.two.Lookup(t.Context(), key, ""); ashlar.KindOf(err) != ashlar.Unavailable {
		t.Error(err)
	}
	_, err := w.two.Lookup(t.Context(), "ROOT", "")
	must(t, err)
	w.meta.away.Store(false)
	_, err = w.two.Lookup(t.Context(), key, "")
	must(t, err)
}

// TestNobodyMakesUsRead: what cannot be a key costs no read, and many who ask for one
// key cost one.
func TestNobodyMakesUsRead(t *testing.T) {
	w := newWorld(t)
	for _, key := range []string{"", "x", "AKIA", "akia2222222222222222", "AKIA222222222222222!", "ASIA2222222222222222"} {
		if _, err := w.one.Lookup(t.Context(), key, ""); err == nil {
			t.Error(key)
		}
	}
	if n := w.meta.gets.Load(); n != 0 {
		t.Error(n, "reads")
	}
	key, _ := w.user(t, "ann")
	w.meta.gets.Store(0)
	var work sync.WaitGroup
	for range 100 {
		work.Go(func() {
			if _, err := w.two.Lookup(context.Background(), key, ""); err != nil {
				t.Error(err)
			}
		})
	}
	work.Wait()
	if n := w.meta.gets.Load(); n != 2 { // the key's row and the user's
		t.Errorf("%d reads for 100 who asked at the same time", n)
	}
}
