package s3gw

import (
	"crypto/md5"
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"ashlar/s3gw/iam"
)

// TestEveryRouteIsAuthorisedByACL walks the table where ACLs count: an ACL that
// allows nobody else allows no operation.
func TestEveryRouteIsAuthorisedByACL(t *testing.T) {
	g := startReal(t, "other", func(o *Options) { o.Credentials, o.ObjectOwnership = cast(t), "ObjectWriter" })
	g.do(t, testCall{method: "PUT", target: "/bucket"}).want(t, 200, "")
	for _, key := range []string{"k", "key", "some/key"} {
		g.do(t, testCall{method: "PUT", target: "/bucket/" + key, body: "x"}).want(t, 200, "")
	}
	const doc = `<Delete><Object><Key>k</Key></Object></Delete>`
	sum := md5.Sum([]byte(doc))
	for i := range routes {
		rt := &routes[i]
		if rt.op == "ListBuckets" || rt.op == "CreateBucket" {
			continue // everybody's own
		}
		for _, who := range []string{"AKIDOTHER", "AKIDNONE"} {
			c := testCall{method: rt.method, target: rt.target(), headers: map[string]string{}, key: who, secret: testSecret}
			if rt.copy {
				c.headers["X-Amz-Copy-Source"] = "bucket/key"
			}
			perKey := rt.op == "DeleteObjects"
			if perKey {
				c.body, c.headers["Content-Md5"] = doc, base64.StdEncoding.EncodeToString(sum[:])
			}
			if a := g.do(t, c); a.status != 403 && !(perKey && strings.Contains(a.body, "<Code>AccessDenied</Code>")) {
				t.Errorf("%s, %s: %d %s", rt.op, who, a.status, a.body)
			}
		}
	}
}

// TestPublicAccessBlockOfACLs: public ACLs that are there do nothing while they
// are ignored, and no new ones come where they are blocked.
func TestPublicAccessBlockOfACLs(t *testing.T) {
	g := startReal(t, "other", func(o *Options) { o.Credentials, o.ObjectOwnership = cast(t), "ObjectWriter" })
	as := func(key, method, target, body string, headers map[string]string) answer {
		t.Helper()
		return g.do(t, testCall{method: method, target: target, body: body, headers: headers, key: key, secret: testSecret})
	}
	public := map[string]string{"X-Amz-Acl": "public-read"}
	as(testKey, "PUT", "/bucket", "", public).want(t, 200, "")
	as(testKey, "PUT", "/bucket/k", "x", public).want(t, 200, "")
	block := func(what string) {
		t.Helper()
		as(testKey, "PUT", "/bucket?publicAccessBlock", "<PublicAccessBlockConfiguration>"+what+"</PublicAccessBlockConfiguration>", nil).want(t, 200, "")
	}
	read := func(status int, code string) {
		t.Helper()
		as("AKIDOTHER", "GET", "/bucket/k", "", nil).want(t, status, code)
		as("AKIDOTHER", "GET", "/bucket", "", nil).want(t, status, code)
		g.send(t, g.request(t, forms[0], testCall{method: "GET", target: "/bucket/k", tamper: anonymise})).want(t, status, code)
	}
	read(200, "")
	block("<IgnorePublicAcls>true</IgnorePublicAcls>")
	read(403, "AccessDenied")
	as(testKey, "PUT", "/bucket/k", "x", public).want(t, 200, "") // ignored, not blocked
	block("<BlockPublicAcls>true</BlockPublicAcls>")
	read(200, "")
	as(testKey, "PUT", "/bucket/k", "y", public).want(t, 403, "AccessDenied")
	as(testKey, "PUT", "/bucket/k?acl", "", public).want(t, 403, "AccessDenied")
	as(testKey, "PUT", "/bucket?acl", "", public).want(t, 403, "AccessDenied")
	as(testKey, "POST", "/bucket/k?uploads", "", public).want(t, 403, "AccessDenied")
	as(testKey, "PUT", "/bucket/copy", "", map[string]string{"X-Amz-Acl": "public-read", "X-Amz-Copy-Source": "bucket/k"}).want(t, 403, "AccessDenied")
	as(testKey, "PUT", "/bucket/k", "y", map[string]string{"X-Amz-Acl": "private"}).want(t, 200, "")
}

// TestCopyBetweenAccounts: a copy reads at the source and writes at the target.
func TestCopyBetweenAccounts(t *testing.T) {
	g := startReal(t, "bucket", func(o *Options) { o.Credentials = cast(t) })
	g.do(t, testCall{method: "PUT", target: "/bucket/k", body: "x"}).want(t, 200, "")
	theirs := func(method, target, source string) answer {
		t.Helper()
		headers := map[string]string{}
		if source != "" {
			headers["X-Amz-Copy-Source"] = source
		}
		return g.do(t, testCall{method: method, target: target, headers: headers, key: "AKIDOTHER", secret: testSecret})
	}
	theirs("PUT", "/theirs", "").want(t, 200, "")
	theirs("PUT", "/theirs/own", "").want(t, 200, "")
	theirs("PUT", "/theirs/k", "bucket/k").want(t, 403, "AccessDenied")
	theirs("PUT", "/bucket/own", "theirs/own").want(t, 403, "AccessDenied")
	g.do(t, testCall{method: "PUT", target: "/bucket?policy", body: strings.Replace(strings.Replace(
		denial("s3:GetObject", "{}"), "Deny", "Allow", 1), `"*"`, `{"AWS":"222"}`, 1)}).want(t, 204, "")
	theirs("PUT", "/theirs/k", "bucket/k").want(t, 200, "")
	theirs("PUT", "/bucket/own", "theirs/own").want(t, 403, "AccessDenied")
	g.do(t, testCall{method: "PUT", target: "/bucket/back", headers: map[string]string{"X-Amz-Copy-Source": "theirs/k"}}).want(t, 403, "AccessDenied")
}

// TestBypassNeedsItsRight: the header alone passes no retention.
func TestBypassNeedsItsRight(t *testing.T) {
	all := cast(t)
	for key, more := range map[string]string{"AKIDMAY": `,"s3:BypassGovernanceRetention"`, "AKIDMAYNOT": ""} {
		all[key] = &iam.Identity{Kind: iam.User, Account: homeAccount, Name: key, ARN: "arn:aws:iam::111:user/" + key, Policies: identityPolicy(t,
			`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":["s3:DeleteObject*"`+more+`],"Resource":"arn:aws:s3:::bucket/*"}}`)}
	}
	g := startReal(t, "other", func(o *Options) { o.Credentials = all })
	g.do(t, testCall{method: "PUT", target: "/bucket", headers: map[string]string{"X-Amz-Bucket-Object-Lock-Enabled": "true"}}).want(t, 200, "")
	version := g.do(t, testCall{method: "PUT", target: "/bucket/k", body: "x"}).want(t, 200, "").header.Get("X-Amz-Version-Id")
	g.do(t, testCall{method: "PUT", target: "/bucket/k?retention", body: "<Retention><Mode>GOVERNANCE</Mode><RetainUntilDate>" +
		time.Now().Add(time.Hour).UTC().Format(time.RFC3339) + "</RetainUntilDate></Retention>"}).want(t, 200, "")
	remove := func(key string, headers map[string]string) answer {
		t.Helper()
		return g.do(t, testCall{method: "DELETE", target: "/bucket/k?versionId=" + version, headers: headers, key: key, secret: testSecret})
	}
	bypass := map[string]string{"X-Amz-Bypass-Governance-Retention": "true"}
	remove("AKIDMAYNOT", bypass).want(t, 403, "AccessDenied")
	remove("AKIDMAY", nil).want(t, 403, "AccessDenied")
	remove("AKIDMAY", bypass).want(t, 204, "")
}
