package s3gw

import (
	"context"
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"ashlar/s3gw/iam"
	"ashlar/s3gw/policy"
	"ashlar/s3gw/s3"
	"ashlar/s3gw/sigv4"
	"ashlar/s3gw/store"
)

// people are keys that act for identities: all have the secret testSecret.
type people map[string]*iam.Identity

func (p people) Lookup(_ context.Context, key, _ string) (sigv4.Credential, error) {
	if p[key] == nil {
		return sigv4.Credential{}, sigv4.ErrUnknownKey
	}
	return sigv4.Credential{Secret: testSecret, Account: p[key].Account.Canonical, Holder: p[key]}, nil
}
func (p people) Account(canonical string) *iam.Account      { return nil }
func (p people) AccountByEmail(address string) *iam.Account { return nil }

var (
	homeAccount  = &iam.Account{ID: "111", Canonical: testAccount, Name: "home"}
	otherAccount = &iam.Account{ID: "222", Canonical: "fedcba", Name: "other"}
)

func identityPolicy(t testing.TB, doc string) []*policy.Policy {
	t.Helper()
	p, err := policy.Parse([]byte(doc), policy.Identity, "")
	if err != nil {
		t.Fatal(err)
	}
	return []*policy.Policy{p}
}

// cast are the root of the bucket's account, a user of it without any right, one
// who may only read, and the root of another account.
func cast(t testing.TB) people {
	user := func(name string) *iam.Identity {
		return &iam.Identity{Kind: iam.User, Account: homeAccount, Name: name, ARN: "arn:aws:iam::111:user/" + name}
	}
	reader := user("reader")
	reader.Policies = identityPolicy(t, `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"s3:GetObject","Resource":"arn:aws:s3:::bucket/*"}}`)
	return people{testKey: iam.RootOf(homeAccount), "AKIDNONE": user("none"), "AKIDREADER": reader, "AKIDOTHER": iam.RootOf(otherAccount)}
}

// TestEveryRouteIsAuthorised walks the table with good signatures of people who
// have no right, and without credentials: whatever the form of the request, the
// backend is not asked for anything but whose the bucket is.
func TestEveryRouteIsAuthorised(t *testing.T) {
	g := start(t, func(o *Options) { o.Backend, o.Credentials = untouched{}, cast(t) })
	const doc = `<Delete><Object><Key>k</Key></Object></Delete>`
	sum := md5.Sum([]byte(doc))
	refused := 0
	for i := range routes {
		rt := &routes[i]
		for _, who := range []string{"AKIDNONE", "AKIDOTHER", ""} {
			if who == "AKIDOTHER" && (rt.op == "ListBuckets" || rt.op == "CreateBucket") {
				continue // every account may list and make its own
			}
			for _, f := range forms {
				c := testCall{method: rt.method, target: rt.target(), headers: map[string]string{}, key: who, secret: testSecret}
				if who == "" {
					c.tamper = func(r *http.Request) { anonymise(r) }
				}
				if rt.copy {
					c.headers["X-Amz-Copy-Source"] = "bucket/key"
				}
				perKey := rt.op == "DeleteObjects"
				if perKey {
					c.body, c.headers["Content-Md5"] = doc, base64.StdEncoding.EncodeToString(sum[:])
				}
				r := g.request(t, f, c)
				if who == "" && strings.HasPrefix(r.Header.Get("X-Amz-Content-Sha256"), "STREAMING-AWS4") {
					r.Header.Del("X-Amz-Content-Sha256") // nobody cannot sign chunks
				}
				w := g.serve(r)
				good := w.Code == 403 || perKey && (w.Code == 200 && strings.Contains(w.Body.String(), "<Code>AccessDenied</Code>") || who == "" && w.Code == 400)
				if !good {
					t.Errorf("%s, %q, %s: %d %s", rt.op, who, f.name, w.Code, w.Body)
				}
				refused++
			}
		}
	}
	t.Logf("%d routes, %d requests refused", len(routes), refused)
}

// anonymise takes all credentials from a request.
func anonymise(r *http.Request) {
	r.Header.Del("Authorization")
	q := r.URL.Query()
	for name := range q {
		if strings.HasPrefix(name, "X-Amz-") {
			q.Del(name)
		}
	}
	r.URL.RawQuery = q.Encode()
}

func TestWhoMayDoWhat(t *testing.T) {
	g := start(t, func(o *Options) { o.Credentials = cast(t) }).withBucket(t, "bucket")
	as := func(key, method, target, body string) answer {
		return g.do(t, testCall{method: method, target: target, body: body, key: key, secret: testSecret})
	}
	nobody := func(method, target string) answer {
		return g.send(t, g.request(t, forms[0], testCall{method: method, target: target, tamper: anonymise}))
	}
	as(testKey, "PUT", "/bucket/k", "x").want(t, 200, "")
	as("AKIDREADER", "GET", "/bucket/k", "").want(t, 200, "")
	as("AKIDREADER", "GET", "/bucket/missing", "").want(t, 403, "AccessDenied") // it may not list
	as(testKey, "GET", "/bucket/missing", "").want(t, 404, "NoSuchKey")
	as("AKIDREADER", "PUT", "/bucket/k", "y").want(t, 403, "AccessDenied")
	as("AKIDOTHER", "GET", "/bucket/missing", "").want(t, 403, "AccessDenied")
	as("AKIDREADER", "GET", "/bucket", "").want(t, 403, "AccessDenied")
	as("AKIDOTHER", "GET", "/bucket/k", "").want(t, 403, "AccessDenied")
	nobody("GET", "/bucket/k").want(t, 403, "AccessDenied")
	nobody("GET", "/nobucket/k").want(t, 404, "NoSuchBucket")

	put := func(doc string, status int, code string) {
		t.Helper()
		as(testKey, "PUT", "/bucket?policy", doc).want(t, status, code)
	}
	public := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::bucket/*"}]}`
	put(public, 204, "")
	as("AKIDOTHER", "GET", "/bucket/k", "").want(t, 200, "")
	as("AKIDNONE", "GET", "/bucket/k", "").want(t, 200, "")
	nobody("GET", "/bucket/k").want(t, 200, "")
	nobody("PUT", "/bucket/k").want(t, 403, "AccessDenied")
	nobody("GET", "/bucket/k?response-content-type=text/html").want(t, 400, "InvalidRequest")
	as("AKIDOTHER", "GET", "/bucket/k?response-content-type=text/html", "").want(t, 200, "")
	if a := as(testKey, "GET", "/bucket?policyStatus", ""); !strings.Contains(a.body, "<IsPublic>true</IsPublic>") {
		t.Error(a.body)
	}
	if a := as(testKey, "GET", "/bucket?policy", ""); a.body != public {
		t.Error(a.body)
	}
	const block = `<PublicAccessBlockConfiguration><RestrictPublicBuckets>true</RestrictPublicBuckets><BlockPublicPolicy>true</BlockPublicPolicy></PublicAccessBlockConfiguration>`
	as(testKey, "PUT", "/bucket?publicAccessBlock", block).want(t, 200, "")
	as("AKIDOTHER", "GET", "/bucket/k", "").want(t, 403, "AccessDenied")
	nobody("GET", "/bucket/k").want(t, 403, "AccessDenied")
	put(public, 403, "AccessDenied")
	as(testKey, "DELETE", "/bucket?publicAccessBlock", "").want(t, 204, "")

	// Who may list learns what is not there, and nothing about what is.
	put(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"s3:ListBucket","Resource":"arn:aws:s3:::bucket",
		"Condition":{"StringLike":{"s3:prefix":["k","miss*"]}}}]}`, 204, "")
	as("AKIDOTHER", "GET", "/bucket/missing", "").want(t, 404, "NoSuchKey")
	as("AKIDOTHER", "HEAD", "/bucket/missing?versionId=null", "").want(t, 404, "")
	nobody("GET", "/bucket/missing?tagging").want(t, 404, "NoSuchKey")
	nobody("GET", "/bucket/k").want(t, 403, "AccessDenied")
	as("AKIDOTHER", "GET", "/bucket/other", "").want(t, 403, "AccessDenied")
	as("AKIDREADER", "GET", "/bucket/missing", "").want(t, 404, "NoSuchKey")
	as("AKIDOTHER", "PUT", "/bucket/missing", "y").want(t, 403, "AccessDenied")

	put(strings.Replace(public, `"*"`, `{"AWS":"222"}`, 1), 204, "")
	as("AKIDOTHER", "GET", "/bucket/k", "").want(t, 200, "")
	nobody("GET", "/bucket/k").want(t, 403, "AccessDenied")
	put(strings.Replace(public, "Allow", "Deny", 1), 204, "")
	as(testKey, "GET", "/bucket/k", "").want(t, 403, "AccessDenied") // also the owner, who can take it back
	put(`{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Principal":"*","Action":"s3:*","Resource":["arn:aws:s3:::bucket","arn:aws:s3:::bucket/*"]}]}`, 204, "")
	as(testKey, "DELETE", "/bucket?policy", "").want(t, 204, "")
	as(testKey, "GET", "/bucket/k", "").want(t, 200, "")
	put(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::other/*"}]}`, 400, "MalformedPolicy")
	put(strings.Replace(public, `"Principal":"*"`, `"NotPrincipal":{"AWS":"222"}`, 1), 400, "MalformedPolicy")
	put(strings.NewReplacer(`"Principal":"*"`, `"NotPrincipal":{"AWS":"222"}`, "Allow", "Deny").Replace(public), 204, "")
}

func TestACLs(t *testing.T) {
	g := start(t, func(o *Options) { o.Credentials, o.ObjectOwnership = cast(t), "ObjectWriter" })
	as := func(key, method, target string, headers map[string]string) answer {
		return g.do(t, testCall{method: method, target: target, headers: headers, body: map[string]string{"PUT": ""}[method], key: key, secret: testSecret})
	}
	acl := func(word string) map[string]string { return map[string]string{"X-Amz-Acl": word} }
	as(testKey, "PUT", "/bucket", acl("public-read-write")).want(t, 200, "")
	as("AKIDOTHER", "PUT", "/bucket/theirs", nil).want(t, 200, "")
	as(testKey, "GET", "/bucket/theirs", nil).want(t, 403, "AccessDenied") // it is its writer's
	as(testKey, "GET", "/bucket/theirs?attributes", map[string]string{"X-Amz-Object-Attributes": "ETag"}).want(t, 403, "AccessDenied")
	as("AKIDOTHER", "PUT", "/bucket/theirs?acl", acl("bucket-owner-read")).want(t, 200, "")
	as(testKey, "GET", "/bucket/theirs", nil).want(t, 200, "")
	as(testKey, "PUT", "/bucket/theirs?acl", acl("private")).want(t, 403, "AccessDenied")
	as(testKey, "DELETE", "/bucket/theirs", nil).want(t, 204, "")
	as("AKIDOTHER", "PUT", "/bucket?acl", acl("private")).want(t, 403, "AccessDenied")
	as(testKey, "PUT", "/bucket?acl", acl("private")).want(t, 200, "")
	for _, owner := range []string{"", "<Owner/>", "<Owner><ID/></Owner>"} {
		g.do(t, testCall{method: "PUT", target: "/bucket?acl", body: "<AccessControlPolicy>" + owner + "<AccessControlList/></AccessControlPolicy>"}).want(t, 400, "MalformedACLError")
	}
	as("AKIDOTHER", "PUT", "/bucket/theirs", nil).want(t, 403, "AccessDenied")

	as(testKey, "PUT", "/bucket/k", acl("authenticated-read")).want(t, 200, "")
	as("AKIDOTHER", "GET", "/bucket/k", nil).want(t, 200, "")
	g.send(t, g.request(t, forms[0], testCall{method: "GET", target: "/bucket/k", tamper: anonymise})).want(t, 403, "AccessDenied")
	attributes := map[string]string{"X-Amz-Object-Attributes": "ETag"}
	as("AKIDOTHER", "GET", "/bucket/k?attributes", attributes).want(t, 200, "")
	as(testKey, "PUT", "/bucket/k", acl("sesame")).want(t, 400, "InvalidArgument")
	as(testKey, "GET", "/bucket?ownershipControls", nil).want(t, 404, "OwnershipControlsNotFoundError")

	as(testKey, "PUT", "/enforced", map[string]string{"X-Amz-Object-Ownership": "BucketOwnerEnforced"}).want(t, 200, "")
	as(testKey, "PUT", "/enforced/k", acl("public-read")).want(t, 400, "AccessControlListNotSupported")
	as(testKey, "PUT", "/enforced?acl", acl("public-read")).want(t, 400, "AccessControlListNotSupported")
	as(testKey, "PUT", "/enforced/k", acl("private")).want(t, 400, "AccessControlListNotSupported")
	as(testKey, "PUT", "/enforced/k", acl("sesame")).want(t, 400, "InvalidArgument")
	as(testKey, "PUT", "/enforced/k", acl("bucket-owner-full-control")).want(t, 200, "")

	// Grants to groups come first, grants of headers in AWS's order.
	as(testKey, "PUT", "/bucket/k", acl("public-read")).want(t, 200, "")
	everybody := map[string]string{}
	for _, p := range []string{"Full-Control", "Write-Acp", "Read-Acp", "Write", "Read"} {
		everybody["X-Amz-Grant-"+p] = "uri=" + s3.AllUsers
	}
	as(testKey, "PUT", "/bucket/all", everybody).want(t, 200, "")
	for target, want := range map[string]string{"/bucket/k?acl": "READ FULL_CONTROL", "/bucket/all?acl": "READ WRITE READ_ACP WRITE_ACP FULL_CONTROL"} {
		var got []string
		for _, p := range strings.Split(as(testKey, "GET", target, nil).body, "<Permission>")[1:] {
			got = append(got, p[:strings.Index(p, "<")])
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %v, want %s", target, got, want)
		}
	}
}

// TestManyKeysAreJudgedTogether deletes keys whose rights depend on the objects
// themselves: by ACL, and by a policy that asks for their tags.
func TestManyKeysAreJudgedTogether(t *testing.T) {
	g := start(t, func(o *Options) { o.Credentials, o.ObjectOwnership = cast(t), "ObjectWriter" })
	as := func(key, method, target, body string, headers map[string]string) answer {
		return g.do(t, testCall{method: method, target: target, body: body, headers: headers, key: key, secret: testSecret})
	}
	as(testKey, "PUT", "/bucket", "", map[string]string{"X-Amz-Acl": "public-read-write"}).want(t, 200, "")
	as(testKey, "PUT", "/bucket?policy", `{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Principal":"*","Action":"s3:DeleteObject",`+
		`"Resource":"arn:aws:s3:::bucket/*","Condition":{"StringEquals":{"s3:ExistingObjectTag/keep":"yes"}}}]}`, nil).want(t, 204, "")
	const keys = 256
	var doc strings.Builder
	doc.WriteString("<Delete>")
	for i := range keys {
		fmt.Fprintf(&doc, "<Object><Key>k%d</Key></Object>", i)
	}
	doc.WriteString("</Delete>")
	sum := md5.Sum([]byte(doc.String()))
	for _, kept := range []int{0, 7} {
		for i := range keys {
			as(testKey, "PUT", fmt.Sprintf("/bucket/k%d", i), "x", map[string]string{"X-Amz-Tagging": map[bool]string{true: "keep=yes"}[i < kept]}).want(t, 200, "")
		}
		a := as("AKIDOTHER", "POST", "/bucket?delete", doc.String(), map[string]string{"Content-Md5": base64.StdEncoding.EncodeToString(sum[:])}).want(t, 200, "")
		deleted, denied := strings.Count(a.body, "<Deleted>"), strings.Count(a.body, "<Code>AccessDenied</Code>")
		if deleted != keys-kept || denied != kept {
			t.Errorf("%d keys deleted, %d denied; want %d and %d", deleted, denied, keys-kept, kept)
		}
	}
}

// overtaken is a backend where, once an object was looked at, another account
// puts its own in its place.
type overtaken struct {
	Backend
	once sync.Once
	put  func()
}

func (o *overtaken) HeadObject(ctx context.Context, bucket, key, version string) (store.Object, error) {
	found, err := o.Backend.HeadObject(ctx, bucket, key, version)
	if err == nil && key == "source" {
		o.once.Do(o.put)
	}
	return found, err
}

// TestWhatWasJudgedIsCopied: the object that a sender may read is the one that it
// gets, also where another takes its place meanwhile.
func TestWhatWasJudgedIsCopied(t *testing.T) {
	race := &overtaken{}
	g := startReal(t, "versioned", func(o *Options) {
		o.Credentials, o.ObjectOwnership = cast(t), "ObjectWriter"
		race.Backend, o.Backend = o.Backend, race
	})
	as := func(key, method, target, body string, headers map[string]string) answer {
		t.Helper()
		return g.do(t, testCall{method: method, target: target, body: body, headers: headers, key: key, secret: testSecret})
	}
	for _, bucket := range []string{"versioned", "plain"} {
		at := "/" + bucket
		as(testKey, "PUT", at, "", nil).want(t, 200, "")
		as(testKey, "PUT", at+"?acl", "", map[string]string{"X-Amz-Acl": "public-read-write"}).want(t, 200, "")
		if bucket == "versioned" {
			as(testKey, "PUT", at+"?versioning", "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>", nil).want(t, 200, "")
		}
		upload := as(testKey, "POST", at+"/parts?uploads", "", nil).want(t, 200, "").body
		_, upload, _ = strings.Cut(upload, "<UploadId>")
		upload, _, _ = strings.Cut(upload, "</UploadId>")
		for _, target := range []string{"/target", "/parts?partNumber=1&uploadId=" + upload, "/source"} {
			as(testKey, "PUT", at+"/source", "mine", nil).want(t, 200, "")
			race.once, race.put = sync.Once{}, func() { as("AKIDOTHER", "PUT", at+"/source", "secret", nil).want(t, 200, "") }
			a := as(testKey, "PUT", at+target, "", map[string]string{"X-Amz-Copy-Source": bucket + "/source", "X-Amz-Metadata-Directive": "REPLACE"})
			if at+target == "/plain/source" {
				a.want(t, 409, "ConditionalRequestConflict") // nothing of the source is left to change
			} else if mine := md5.Sum([]byte("mine")); a.status != 200 || !strings.Contains(a.body, hex.EncodeToString(mine[:])) {
				t.Errorf("%s%s: %d %s", bucket, target, a.status, a.body)
			}
		}
	}
}

// TestCopiedTagsNeedRights: a copy that takes tags along reads and writes them.
func TestCopiedTagsNeedRights(t *testing.T) {
	copier := func(more string) *iam.Identity {
		return &iam.Identity{Kind: iam.User, Account: homeAccount, Name: "copier", ARN: "arn:aws:iam::111:user/copier", Policies: identityPolicy(t,
			`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":["s3:GetObject","s3:PutObject"`+more+`],"Resource":"arn:aws:s3:::bucket/*"}}`)}
	}
	all := cast(t)
	all["AKIDNEITHER"], all["AKIDREADS"] = copier(""), copier(`,"s3:GetObjectTagging"`)
	all["AKIDWRITES"], all["AKIDBOTH"] = copier(`,"s3:PutObjectTagging"`), copier(`,"s3:GetObjectTagging","s3:PutObjectTagging"`)
	g := startReal(t, "bucket", func(o *Options) { o.Credentials = all })
	g.do(t, testCall{method: "PUT", target: "/bucket/plain", body: "x"}).want(t, 200, "")
	g.do(t, testCall{method: "PUT", target: "/bucket/tagged", body: "x", headers: map[string]string{"X-Amz-Tagging": "a=b"}}).want(t, 200, "")
	for _, c := range []struct {
		source, directive, tags string
		may                     string // who may
	}{
		{"plain", "", "", "NEITHER READS WRITES BOTH"},
		{"tagged", "", "", "BOTH"},
		{"tagged", "COPY", "", "BOTH"},
		{"tagged", "REPLACE", "", "NEITHER READS WRITES BOTH"},
		{"tagged", "REPLACE", "c=d", "WRITES BOTH"},
	} {
		for _, who := range []string{"NEITHER", "READS", "WRITES", "BOTH"} {
			h := map[string]string{"X-Amz-Copy-Source": "bucket/" + c.source}
			if c.directive != "" {
				h["X-Amz-Tagging-Directive"] = c.directive
			}
			if c.tags != "" {
				h["X-Amz-Tagging"] = c.tags
			}
			a := g.do(t, testCall{method: "PUT", target: "/bucket/copy", headers: h, key: "AKID" + who, secret: testSecret})
			if want := map[bool]int{true: 200, false: 403}[strings.Contains(c.may, who)]; a.status != want {
				t.Errorf("%+v by %s: %d, want %d", c, who, a.status, want)
			}
		}
	}
}

// late is the backend of a gateway that has not seen yet what another one changed.
type late struct {
	Backend
	seen *store.Access
}

func (l *late) Access(ctx context.Context, bucket string) (store.Access, error) {
	if l.seen == nil {
		a, err := l.Backend.Access(ctx, bucket)
		if err == nil {
			l.seen = &a
		}
		return a, err
	}
	return *l.seen, nil
}

// TestSettingsAreJudgedAsTheyAre: what may not be public is refused by what the
// bucket says, not by what is remembered of it.
func TestSettingsAreJudgedAsTheyAre(t *testing.T) {
	g := startReal(t, "other", func(o *Options) { o.Backend, o.ObjectOwnership = &late{Backend: o.Backend}, "ObjectWriter" })
	send := func(target, body string, headers map[string]string) answer {
		t.Helper()
		return g.do(t, testCall{method: "PUT", target: target, body: body, headers: headers})
	}
	send("/bucket", "", nil).want(t, 200, "")
	send("/bucket?tagging", `<Tagging><TagSet/></Tagging>`, nil).want(t, 200, "") // now it is remembered
	send("/bucket?publicAccessBlock", `<PublicAccessBlockConfiguration><BlockPublicPolicy>true</BlockPublicPolicy><BlockPublicAcls>true</BlockPublicAcls></PublicAccessBlockConfiguration>`, nil).want(t, 200, "")
	send("/bucket?policy", strings.Replace(denial("s3:GetObject", "{}"), "Deny", "Allow", 1), nil).want(t, 403, "AccessDenied")
	public := map[string]string{"X-Amz-Acl": "public-read"}
	send("/bucket?acl", "", public).want(t, 403, "AccessDenied")
	send("/bucket?publicAccessBlock", `<PublicAccessBlockConfiguration/>`, nil).want(t, 200, "")
	send("/bucket?acl", "", public).want(t, 200, "")
	const enforced = `<OwnershipControls><Rule><ObjectOwnership>BucketOwnerEnforced</ObjectOwnership></Rule></OwnershipControls>`
	send("/bucket?ownershipControls", enforced, nil).want(t, 400, "InvalidBucketAclWithObjectOwnership")
	send("/bucket?acl", "", map[string]string{"X-Amz-Acl": "private"}).want(t, 200, "")
	send("/bucket?ownershipControls", enforced, nil).want(t, 200, "")
	send("/bucket?acl", "", public).want(t, 400, "AccessControlListNotSupported")
}

// TestTakenNames: a name of another account's is taken, whatever else a
// CreateBucket asks for.
func TestTakenNames(t *testing.T) {
	g := start(t, func(o *Options) { o.Credentials, o.Region = cast(t), "eu-test-1" })
	create := func(key string, headers map[string]string) answer {
		t.Helper()
		return g.do(t, testCall{method: "PUT", target: "/bucket", headers: headers, key: key, secret: testSecret, region: "eu-test-1"})
	}
	create(testKey, nil).want(t, 200, "")
	create(testKey, nil).want(t, 409, "BucketAlreadyOwnedByYou")
	for _, headers := range []map[string]string{
		nil, {"X-Amz-Object-Ownership": "ObjectWriter"}, {"X-Amz-Object-Ownership": "ObjectWriter", "X-Amz-Acl": "public-read"}, {"X-Amz-Bucket-Object-Lock-Enabled": "true"},
	} {
		create("AKIDOTHER", headers).want(t, 409, "BucketAlreadyExists")
	}
	create("AKIDNONE", nil).want(t, 403, "AccessDenied")
}

// TestOwnersOfDeleteMarkers: a marker is whose an object would be.
func TestOwnersOfDeleteMarkers(t *testing.T) {
	g := startReal(t, "other", func(o *Options) { o.Credentials = cast(t) })
	for mode, owner := range map[string]string{"BucketOwnerEnforced": homeAccount.Canonical, "ObjectWriter": otherAccount.Canonical} {
		bucket := "/" + strings.ToLower(mode)
		g.do(t, testCall{method: "PUT", target: bucket, headers: map[string]string{"X-Amz-Object-Ownership": mode}}).want(t, 200, "")
		g.do(t, testCall{method: "PUT", target: bucket + "?versioning", body: "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"}).want(t, 200, "")
		g.do(t, testCall{method: "PUT", target: bucket + "?policy", body: strings.ReplaceAll(strings.Replace(strings.Replace(
			denial("s3:DeleteObject", "{}"), "Deny", "Allow", 1), `"*"`, `{"AWS":"222"}`, 1), "bucket/", bucket[1:]+"/")}).want(t, 204, "")
		g.do(t, testCall{method: "DELETE", target: bucket + "/k", key: "AKIDOTHER", secret: testSecret}).want(t, 204, "")
		if a := g.do(t, testCall{method: "GET", target: bucket + "?versions"}); !strings.Contains(a.body, "<Owner><ID>"+owner+"</ID>") {
			t.Errorf("%s: %s", mode, a.body)
		}
	}
}

// TestACLsThatChangeNothing: clients from before object ownership send the canned ACL
// private with every object, or put the ACL that they read behind it. In a bucket
// where nobody chose that its owner is enforced that is what the object has.
func TestACLsThatChangeNothing(t *testing.T) {
	g := start(t)
	put := func(target string, canned, doc string) answer {
		h := map[string]string{}
		if canned != "" {
			h["X-Amz-Acl"] = canned
		}
		return g.do(t, testCall{method: "PUT", target: target, headers: h, body: doc, key: testKey, secret: testSecret})
	}
	put("/plain", "", "").want(t, 200, "")
	put("/plain/k", "private", "x").want(t, 200, "")
	read := g.do(t, testCall{method: "GET", target: "/plain/k?acl", key: testKey, secret: testSecret})
	read.want(t, 200, "")
	put("/plain/k?acl", "", string(read.body)).want(t, 200, "")
	put("/plain/k?acl", "", strings.Replace(string(read.body), "FULL_CONTROL", "READ", 1)).want(t, 400, "AccessControlListNotSupported")
	put("/plain/k?acl", "private", "").want(t, 400, "AccessControlListNotSupported")
	put("/plain/k", "public-read", "x").want(t, 400, "AccessControlListNotSupported")

	const enforced = `<OwnershipControls><Rule><ObjectOwnership>BucketOwnerEnforced</ObjectOwnership></Rule></OwnershipControls>`
	put("/plain?ownershipControls", "", enforced).want(t, 200, "")
	put("/plain/k", "private", "x").want(t, 400, "AccessControlListNotSupported")
	put("/plain/k?acl", "", string(read.body)).want(t, 400, "AccessControlListNotSupported")
}
