package s3gw

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"ashlar/s3gw/iam"
)

// trusting makes a role that a principal may assume, with an inline policy, and returns
// its ARN.
func (w *town) trusting(t testing.TB, name, principal, policy string) string {
	t.Helper()
	trust := `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"sts:AssumeRole","Principal":{"AWS":"` + principal + `"}}}`
	arn := w.api(t, rootOfHome, "CreateRole", "RoleName", name, "AssumeRolePolicyDocument", trust).wants(t, 200, "").field("Arn")
	w.api(t, rootOfHome, "PutRolePolicy", "RoleName", name, "PolicyName", "p", "PolicyDocument", policy).wants(t, 200, "")
	return arn
}

// postForm uploads a file by a form that a credential signed.
func (w *town) postForm(t *testing.T, who credential, key string) answer {
	t.Helper()
	f := testForm{bucket: "bucket", file: "content", accessKey: who.key, secret: who.secret, fields: [][2]string{{"key", key}},
		conditions: `{"bucket":"bucket"},["starts-with","$key",""]`}
	if who.token != "" {
		f.fields = append(f.fields, [2]string{"x-amz-security-token", who.token})
		f.conditions += fmt.Sprintf(`,{"x-amz-security-token":%q}`, who.token)
	}
	return f.send(t, w.gateway)
}

func TestAssumeRole(t *testing.T) {
	w := startTown(t)
	w.as(t, rootOfHome, "PUT", "/bucket", "").want(t, 200, "")
	w.as(t, rootOfHome, "PUT", "/bucket/k", "x").want(t, 200, "")
	ann, bob := w.user(t, "ann", ""), w.user(t, "bob", "")
	permitted := w.user(t, "permitted", allow(`"sts:AssumeRole"`, "*"))
	denied := w.user(t, "denied", `{"Version":"2012-10-17","Statement":{"Effect":"Deny","Action":"sts:AssumeRole","Resource":"*"}}`)
	read := allow(`"s3:GetObject"`, "arn:aws:s3:::bucket/*")
	byName := w.trusting(t, "byname", "arn:aws:iam::"+iam.RootID+":user/ann", read)
	byAccount := w.trusting(t, "byaccount", iam.RootID, read)
	assume := func(who credential, role string, params ...string) answer {
		t.Helper()
		return w.api(t, who, "AssumeRole", append([]string{"RoleArn", role, "RoleSessionName", "work"}, params...)...)
	}
	a := assume(ann, byName).wants(t, 200, "")
	if a.field("Arn") != "arn:aws:sts::"+iam.RootID+":assumed-role/byname/work" || !strings.HasSuffix(a.field("AssumedRoleId"), ":work") {
		t.Error(a.body)
	}
	session := a.credential()
	w.as(t, session, "GET", "/bucket/k", "").want(t, 200, "")
	w.as(t, session, "PUT", "/bucket/k", "y").want(t, 403, "AccessDenied")
	if id := w.api(t, session, "GetCallerIdentity").wants(t, 200, ""); id.field("Arn") != a.field("Arn") || id.field("UserId") != a.field("AssumedRoleId") {
		t.Error(id.body)
	}
	assume(bob, byName).wants(t, 403, "AccessDenied")
	assume(permitted, byName).wants(t, 403, "AccessDenied") // the trust is ann's
	assume(ann, byAccount).wants(t, 403, "AccessDenied")    // the account may, ann was not told so
	assume(permitted, byAccount).wants(t, 200, "")
	assume(denied, byAccount).wants(t, 403, "AccessDenied")
	assume(rootOfHome, byAccount).wants(t, 403, "AccessDenied")
	foreign := w.api(t, rootOfOther, "CreateUser", "UserName", "ann").wants(t, 200, "")
	key := w.api(t, rootOfOther, "CreateAccessKey", "UserName", "ann").wants(t, 200, "").credential()
	assume(key, byName).wants(t, 403, "AccessDenied")
	assume(key, byAccount).wants(t, 403, "AccessDenied")
	across := w.trusting(t, "across", foreign.field("Arn"), read)
	assume(key, across).wants(t, 403, "AccessDenied") // two accounts: both must allow
	w.api(t, rootOfOther, "PutUserPolicy", "UserName", "ann", "PolicyName", "p", "PolicyDocument", allow(`"sts:AssumeRole"`, across)).wants(t, 200, "")
	w.as(t, assume(key, across).wants(t, 200, "").credential(), "GET", "/bucket/k", "").want(t, 200, "")
	for _, nothing := range []string{"arn:aws:iam::" + iam.RootID + ":role/none", "arn:aws:iam::333:role/byname", "byname", byName + "/", "arn:aws:iam::" + iam.RootID + ":role/x/byname"} {
		assume(ann, nothing).wants(t, 403, "AccessDenied") // as where one is not trusted
	}

	assume(ann, byName, "DurationSeconds", "899").wants(t, 400, "ValidationError")
	assume(ann, byName, "DurationSeconds", "3601").wants(t, 400, "ValidationError")
	assume(ann, byName, "Policy", "{}").wants(t, 400, "MalformedPolicyDocument")
	assume(ann, byName, "Policy", allow(`"*"`, "arn:aws:s3:::"+strings.Repeat("x", 2048))).wants(t, 400, "PackedPolicyTooLarge")
	assume(ann, byName, "PolicyArns.member.1.arn", "arn:aws:iam::aws:policy/Nothing").wants(t, 404, "NoSuchEntity")
	w.api(t, ann, "AssumeRole", "RoleArn", byName, "RoleSessionName", "a/b").wants(t, 400, "ValidationError")

	// A condition of the trust.
	w.api(t, rootOfHome, "UpdateAssumeRolePolicy", "RoleName", "byname", "PolicyDocument",
		`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"sts:AssumeRole","Principal":{"AWS":"`+iam.RootID+`"},"Condition":{"StringEquals":{"sts:ExternalId":"42","sts:RoleSessionName":"work"}}}}`).wants(t, 200, "")
	assume(permitted, byName).wants(t, 403, "AccessDenied")
	assume(permitted, byName, "ExternalId", "41").wants(t, 403, "AccessDenied")
	assume(permitted, byName, "ExternalId", "42").wants(t, 200, "")

	// The role is gone: so are its sessions.
	w.api(t, rootOfHome, "DeleteRolePolicy", "RoleName", "byname", "PolicyName", "p").wants(t, 200, "")
	w.as(t, session, "GET", "/bucket/k", "").want(t, 403, "AccessDenied")
	w.api(t, rootOfHome, "DeleteRole", "RoleName", "byname").wants(t, 200, "")
	w.as(t, session, "GET", "/bucket/k", "").want(t, 400, "InvalidToken")
	w.api(t, session, "GetCallerIdentity").wants(t, 403, "InvalidClientTokenId")
}

// TestASessionIsNeverMoreThanItsScope: what a session was not given it does not get from
// anybody: not from its role, nor from a bucket's policy that is for its role or for all.
func TestASessionIsNeverMoreThanItsScope(t *testing.T) {
	w := startTown(t)
	w.as(t, rootOfHome, "PUT", "/bucket", "").want(t, 200, "")
	w.as(t, rootOfHome, "PUT", "/bucket/k", "x").want(t, 200, "")
	ann := w.user(t, "ann", "")
	role := w.trusting(t, "r", "arn:aws:iam::"+iam.RootID+":user/ann", allow(`"*"`, "*"))
	get := func(params ...string) credential {
		t.Helper()
		return w.api(t, ann, "AssumeRole", append([]string{"RoleArn", role, "RoleSessionName", "work"}, params...)...).wants(t, 200, "").credential()
	}
	full, scoped := get(), get("Policy", allow(`"s3:GetObject"`, "*"))
	readonly := get("PolicyArns.member.1.arn", "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess")
	w.as(t, full, "PUT", "/bucket/k", "x").want(t, 200, "")
	for _, who := range []credential{scoped, readonly} {
		w.as(t, who, "GET", "/bucket/k", "").want(t, 200, "")
		w.as(t, who, "PUT", "/bucket/k", "y").want(t, 403, "AccessDenied")
		w.api(t, who, "CreateUser", "UserName", "x").wants(t, 403, "AccessDenied")
		w.api(t, who, "GetSessionToken").wants(t, 403, "AccessDenied")
	}
	for _, principal := range []string{`"*"`, `{"AWS":"` + role + `"}`, `{"AWS":"` + iam.RootID + `"}`} {
		doc := `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":` + principal + `,"Action":"s3:PutObject","Resource":"arn:aws:s3:::bucket/*"}}`
		w.as(t, rootOfHome, "PUT", "/bucket?policy", doc).want(t, 204, "")
		w.as(t, full, "PUT", "/bucket/k", "x").want(t, 200, "")
		for _, who := range []credential{scoped, readonly} {
			w.as(t, who, "PUT", "/bucket/k", "y").want(t, 403, "AccessDenied")
		}
	}
	// A denial of the bucket wins over the role's right to everything.
	w.as(t, rootOfHome, "PUT", "/bucket?policy", `{"Version":"2012-10-17","Statement":{"Effect":"Deny","Principal":{"AWS":"`+role+`"},"Action":"s3:GetObject","Resource":"arn:aws:s3:::bucket/*"}}`).want(t, 204, "")
	w.as(t, full, "GET", "/bucket/k", "").want(t, 403, "AccessDenied")
	w.as(t, rootOfHome, "GET", "/bucket/k", "").want(t, 200, "")
}

func TestSessionTokens(t *testing.T) {
	w := startTown(t)
	var shift atomic.Int64
	w.now = func() time.Time { return time.Now().Add(time.Duration(shift.Load())) }
	ann := w.user(t, "ann", allow(`["s3:*","iam:*"]`, "*"))
	w.as(t, ann, "PUT", "/bucket", "").want(t, 200, "")
	s := w.api(t, ann, "GetSessionToken", "DurationSeconds", "900").wants(t, 200, "").credential()
	w.as(t, s, "PUT", "/bucket/k", "x").want(t, 200, "")
	w.api(t, s, "ListUsers").wants(t, 403, "AccessDenied")
	w.api(t, s, "GetSessionToken").wants(t, 403, "AccessDenied")
	w.api(t, s, "GetCallerIdentity").wants(t, 200, "")
	root := w.api(t, rootOfHome, "GetSessionToken").wants(t, 200, "").credential()
	w.as(t, root, "GET", "/bucket/k", "").want(t, 200, "")
	shift.Store(int64(901 * time.Second))
	w.as(t, s, "PUT", "/bucket/k", "x").want(t, 400, "ExpiredToken")
	w.api(t, s, "GetCallerIdentity").wants(t, 403, "ExpiredToken")
	w.as(t, root, "GET", "/bucket/k", "").want(t, 200, "")
	shift.Store(int64(3601 * time.Second))
	w.as(t, root, "GET", "/bucket/k", "").want(t, 400, "ExpiredToken")
}

// provider is an identity provider on the loopback address.
type provider struct {
	*httptest.Server
	rsa     *rsa.PrivateKey
	ec      *ecdsa.PrivateKey
	asked   atomic.Int64
	kid     atomic.Value // of the RSA key
	answers atomic.Value // func(http.ResponseWriter, *http.Request) bool
}

func startProvider(t testing.TB) *provider {
	t.Helper()
	p := &provider{}
	var err error
	if p.rsa, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		t.Fatal(err)
	}
	if p.ec, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	p.kid.Store("one")
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.asked.Add(1)
		if f, ok := p.answers.Load().(func(http.ResponseWriter, *http.Request) bool); ok && f(w, r) {
			return
		}
		switch r.URL.Path {
		case "/.well-known/openid-configuration":
			fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q}`, p.URL, p.URL+"/keys")
		case "/keys":
			json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{
				{Key: &p.rsa.PublicKey, KeyID: p.kid.Load().(string), Algorithm: "RS256", Use: "sig"}, {Key: &p.ec.PublicKey, KeyID: "ec", Algorithm: "ES256", Use: "sig"},
			}})
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(p.Close)
	return p
}

// token signs claims with a key under a name.
func (p *provider) token(t testing.TB, alg jose.SignatureAlgorithm, key any, kid string, claims map[string]any) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: key, KeyID: kid}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign(text)
	if err != nil {
		t.Fatal(err)
	}
	out, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (p *provider) claims(change map[string]any) map[string]any {
	now := time.Now().Unix()
	c := map[string]any{"iss": p.URL, "aud": "store", "sub": "system:serviceaccount:velero", "exp": now + 600, "iat": now, "nbf": now}
	maps.Copy(c, change)
	for k, v := range c {
		if v == nil {
			delete(c, k)
		}
	}
	return c
}

func TestWebIdentity(t *testing.T) {
	p := startProvider(t)
	w := startTown(t, func(o *Options) { o.Issuers = []string{p.URL} })
	w.as(t, rootOfHome, "PUT", "/bucket", "").want(t, 200, "")
	w.as(t, rootOfHome, "PUT", "/bucket/k", "x").want(t, 200, "")
	name := strings.TrimPrefix(p.URL, "http://")
	arn := w.api(t, rootOfHome, "CreateOpenIDConnectProvider", "Url", p.URL, "ClientIDList.member.1", "store", "ThumbprintList.member.1", strings.Repeat("a", 40)).wants(t, 200, "").field("OpenIDConnectProviderArn")
	if arn != "arn:aws:iam::"+iam.RootID+":oidc-provider/"+name {
		t.Error(arn)
	}
	w.api(t, rootOfHome, "CreateOpenIDConnectProvider", "Url", "https://internal.example").wants(t, 403, "AccessDenied")
	w.api(t, rootOfHome, "CreateOpenIDConnectProvider", "Url", "http://internal.example").wants(t, 400, "InvalidInput")
	trust := `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"sts:AssumeRoleWithWebIdentity","Principal":{"Federated":"` + arn + `"},
		"Condition":{"StringEquals":{"` + name + `:aud":"store"},"StringLike":{"` + name + `:sub":"system:serviceaccount:*"}}}}`
	role := w.api(t, rootOfHome, "CreateRole", "RoleName", "backup", "AssumeRolePolicyDocument", trust).wants(t, 200, "").field("Arn")
	w.api(t, rootOfHome, "PutRolePolicy", "RoleName", "backup", "PolicyName", "p", "PolicyDocument", allow(`"s3:GetObject"`, "*")).wants(t, 200, "")
	assume := func(token string, params ...string) answer {
		t.Helper()
		return w.api(t, credential{}, "AssumeRoleWithWebIdentity", append([]string{"RoleArn", role, "RoleSessionName", "pod", "WebIdentityToken", token}, params...)...)
	}
	good := p.token(t, jose.RS256, p.rsa, "one", p.claims(nil))
	a := assume(good).wants(t, 200, "")
	if a.field("SubjectFromWebIdentityToken") != "system:serviceaccount:velero" || a.field("Audience") != "store" || a.field("Provider") != p.URL {
		t.Error(a.body)
	}
	w.as(t, a.credential(), "GET", "/bucket/k", "").want(t, 200, "")
	w.as(t, a.credential(), "PUT", "/bucket/k", "y").want(t, 403, "AccessDenied")
	assume(p.token(t, jose.ES256, p.ec, "ec", p.claims(map[string]any{"aud": []string{"x", "store"}}))).wants(t, 200, "")
	scoped := assume(good, "Policy", allow(`"s3:PutObject"`, "*")).wants(t, 200, "").credential()
	w.as(t, scoped, "GET", "/bucket/k", "").want(t, 403, "AccessDenied")
	w.as(t, scoped, "PUT", "/bucket/k", "y").want(t, 403, "AccessDenied")

	stranger, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	public, err := json.Marshal(jose.JSONWebKey{Key: &p.rsa.PublicKey})
	if err != nil {
		t.Fatal(err)
	}
	unsigned := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","kid":"one"}`)) + "." + strings.Split(good, ".")[1] + "."
	now := time.Now().Unix()
	for what, c := range map[string]struct {
		token, code string
	}{
		"another key":                    {p.token(t, jose.RS256, stranger, "one", p.claims(nil)), "InvalidIdentityToken"},
		"a key of another name":          {p.token(t, jose.RS256, p.rsa, "two", p.claims(nil)), "InvalidIdentityToken"},
		"HMAC with the public key":       {p.token(t, jose.HS256, public, "one", p.claims(nil)), "InvalidIdentityToken"},
		"another algorithm":              {p.token(t, jose.PS256, p.rsa, "one", p.claims(nil)), "InvalidIdentityToken"},
		"the other key's algorithm":      {p.token(t, jose.RS256, p.rsa, "ec", p.claims(nil)), "InvalidIdentityToken"},
		"no signature":                   {unsigned, "InvalidIdentityToken"},
		"a changed byte":                 {good[:len(good)-6] + "AAAAAA", "InvalidIdentityToken"},
		"no token":                       {"abc", "InvalidIdentityToken"},
		"too long":                       {strings.Repeat("a", 20_001), "InvalidIdentityToken"},
		"another audience":               {p.token(t, jose.RS256, p.rsa, "one", p.claims(map[string]any{"aud": "other"})), "InvalidIdentityToken"},
		"no audience":                    {p.token(t, jose.RS256, p.rsa, "one", p.claims(map[string]any{"aud": nil})), "InvalidIdentityToken"},
		"an issuer that we do not ask":   {p.token(t, jose.RS256, p.rsa, "one", p.claims(map[string]any{"iss": "https://id.example"})), "InvalidIdentityToken"},
		"expired":                        {p.token(t, jose.RS256, p.rsa, "one", p.claims(map[string]any{"exp": now - 1})), "ExpiredTokenException"},
		"never expires":                  {p.token(t, jose.RS256, p.rsa, "one", p.claims(map[string]any{"exp": nil})), "InvalidIdentityToken"},
		"not yet":                        {p.token(t, jose.RS256, p.rsa, "one", p.claims(map[string]any{"nbf": now + 600})), "InvalidIdentityToken"},
		"no subject":                     {p.token(t, jose.RS256, p.rsa, "one", p.claims(map[string]any{"sub": nil})), "InvalidIdentityToken"},
		"a subject that is not trusted":  {p.token(t, jose.RS256, p.rsa, "one", p.claims(map[string]any{"sub": "someone"})), "AccessDenied"},
		"an address in the token's head": {p.token(t, jose.RS256, stranger, "one", p.claims(map[string]any{"jku": "http://127.0.0.1:1/"})), "InvalidIdentityToken"},
	} {
		status := 400
		if c.code == "AccessDenied" {
			status = 403
		}
		if a := assume(c.token); a.status != status || !strings.Contains(a.body, "<Code>"+c.code+"</Code>") {
			t.Errorf("%s: %d %s", what, a.status, a.body)
		}
	}
	// Whether a role or an account is there cannot be told without a token that is good.
	forged := p.token(t, jose.RS256, stranger, "one", p.claims(nil))
	want := ""
	for _, arn := range []string{role, "arn:aws:iam::" + iam.RootID + ":role/none", "arn:aws:iam::222:role/x", "arn:aws:iam::333:role/x", "x"} {
		got := w.api(t, credential{}, "AssumeRoleWithWebIdentity", "RoleArn", arn, "RoleSessionName", "pod", "WebIdentityToken", forged)
		if text := got.field("Code") + got.field("Message"); want != "" && text != want {
			t.Errorf("%s: %s, not %s", arn, text, want)
		} else {
			want = text
		}
	}
	// Nor does a root's signature help.
	w.api(t, rootOfHome, "AssumeRoleWithWebIdentity", "RoleArn", role, "RoleSessionName", "pod", "WebIdentityToken", forged).wants(t, 400, "InvalidIdentityToken")
	// AssumeRole does not take what trusts a provider.
	w.api(t, w.user(t, "ann", allow(`"*"`, "*")), "AssumeRole", "RoleArn", role, "RoleSessionName", "pod").wants(t, 403, "AccessDenied")

	w.api(t, rootOfHome, "RemoveClientIDFromOpenIDConnectProvider", "OpenIDConnectProviderArn", arn, "ClientID", "store").wants(t, 200, "")
	assume(good).wants(t, 400, "InvalidIdentityToken")
	w.api(t, rootOfHome, "AddClientIDToOpenIDConnectProvider", "OpenIDConnectProviderArn", arn, "ClientID", "store").wants(t, 200, "")
	assume(good).wants(t, 200, "")
	if n := p.asked.Load(); n > 4 { // two documents, and twice at most for the keys that are not there
		t.Errorf("the provider was asked %d times", n)
	}
	w.api(t, rootOfHome, "DeleteOpenIDConnectProvider", "OpenIDConnectProviderArn", arn).wants(t, 200, "")
	assume(good).wants(t, 400, "InvalidIdentityToken")
}

// TestRefusedTokensAreThrottled: whoever tries tokens is stopped, and a good one of
// somebody else's address would not be.
func TestRefusedTokensAreThrottled(t *testing.T) {
	w := startTown(t)
	at := time.Now()
	w.now = func() time.Time { return at } // nothing is forgiven meanwhile
	try := func() answer {
		return w.api(t, credential{}, "AssumeRoleWithWebIdentity", "RoleArn", "x", "RoleSessionName", "pod", "WebIdentityToken", "abc")
	}
	for range failuresBurst {
		try().wants(t, 400, "InvalidIdentityToken")
	}
	try().wants(t, 400, "Throttling")
	w.api(t, rootOfHome, "GetCallerIdentity").wants(t, 200, "")
	at = at.Add(time.Second)
	try().wants(t, 400, "InvalidIdentityToken")
}
