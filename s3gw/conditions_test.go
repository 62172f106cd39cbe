package s3gw

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"testing"
	"time"

	"ashlar"
	"ashlar/s3gw/store"
)

// TestRepeatedHeaders: a header that a policy judges and a handler obeys has one
// value.
func TestRepeatedHeaders(t *testing.T) {
	g := startReal(t, "bucket")
	g.do(t, testCall{method: "PUT", target: "/bucket?policy", body: `{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Principal":"*","Action":"s3:PutObject",` +
		`"Resource":"arn:aws:s3:::bucket/*","Condition":{"StringEquals":{"s3:x-amz-website-redirect-location":"/bad"}}}]}`}).want(t, 204, "")
	put := func(name string, values ...string) answer {
		t.Helper()
		r, err := http.NewRequest("PUT", g.url+"/bucket/k", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		r.Header[name] = values
		sum := sha256.Sum256(nil)
		g.sign(t, r, forms[0], testCall{key: testKey, secret: testSecret, region: testRegion, at: time.Now()}, hex.EncodeToString(sum[:]))
		return g.send(t, r)
	}
	const redirect = "X-Amz-Website-Redirect-Location"
	put(redirect, "/good").want(t, 200, "")
	put(redirect, "/bad").want(t, 403, "AccessDenied")
	put(redirect, "/bad", "/good").want(t, 400, "InvalidArgument")
	put("X-Amz-Meta-Colour", "red", "blue").want(t, 200, "")
}

// denial is a policy of the bucket that denies an action on its keys under a
// condition.
func denial(action, condition string) string {
	return `{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Principal":"*","Action":"` + action + `","Resource":"arn:aws:s3:::bucket/*","Condition":` + condition + `}]}`
}

// TestLockConditionsAreOfTheDocument: a lock that is put in a document is judged
// by it, whatever the headers say.
func TestLockConditionsAreOfTheDocument(t *testing.T) {
	g := startReal(t, "other")
	send := func(method, target, body string, headers map[string]string) answer {
		t.Helper()
		return g.do(t, testCall{method: method, target: target, body: body, headers: headers})
	}
	send("PUT", "/bucket", "", map[string]string{"X-Amz-Bucket-Object-Lock-Enabled": "true"}).want(t, 200, "")
	send("PUT", "/bucket/k", "x", nil).want(t, 200, "")
	day := 24 * time.Hour
	late, soon := time.Now().Add(100*day).UTC().Format(time.RFC3339), time.Now().Add(2*day).UTC().Format(time.RFC3339)
	headers := map[string]string{"X-Amz-Object-Lock-Mode": "GOVERNANCE", "X-Amz-Object-Lock-Retain-Until-Date": soon, "X-Amz-Object-Lock-Legal-Hold": "OFF"}
	retention := func(mode, until string) string {
		return "<Retention><Mode>" + mode + "</Mode><RetainUntilDate>" + until + "</RetainUntilDate></Retention>"
	}
	hold := func(status string) string { return "<LegalHold><Status>" + status + "</Status></LegalHold>" }
	for _, c := range []struct{ action, condition, sub, denied, allowed string }{
		{"s3:PutObjectRetention", `{"StringEquals":{"s3:object-lock-mode":"COMPLIANCE"}}`, "retention", retention("COMPLIANCE", soon), retention("GOVERNANCE", soon)},
		{"s3:PutObjectRetention", `{"DateGreaterThan":{"s3:object-lock-retain-until-date":"` + time.Now().Add(10*day).Format(time.RFC3339) + `"}}`,
			"retention", retention("GOVERNANCE", late), retention("GOVERNANCE", soon)},
		{"s3:PutObjectRetention", `{"NumericGreaterThan":{"s3:object-lock-remaining-retention-days":"10"}}`,
			"retention", retention("GOVERNANCE", late), retention("GOVERNANCE", soon)},
		{"s3:PutObjectLegalHold", `{"StringEquals":{"s3:object-lock-legal-hold":"ON"}}`, "legal-hold", hold("ON"), hold("OFF")},
	} {
		send("PUT", "/bucket?policy", denial(c.action, c.condition), nil).want(t, 204, "")
		send("PUT", "/bucket/k?"+c.sub, c.denied, headers).want(t, 403, "AccessDenied")
		send("PUT", "/bucket/k?"+c.sub, c.denied, nil).want(t, 403, "AccessDenied")
		send("PUT", "/bucket/k?"+c.sub, c.allowed, headers).want(t, 200, "")
	}
}

// TestCopySourceCondition: the source of a copy has one name, however it is
// written.
func TestCopySourceCondition(t *testing.T) {
	g := startReal(t, "bucket")
	g.version(t, "Enabled")
	source := g.do(t, testCall{method: "PUT", target: "/bucket/secret", body: "x"}).want(t, 200, "").header.Get("X-Amz-Version-Id")
	g.do(t, testCall{method: "PUT", target: "/bucket/open", body: "x"}).want(t, 200, "")
	g.do(t, testCall{method: "PUT", target: "/bucket?policy", body: denial("s3:PutObject", `{"StringEquals":{"s3:x-amz-copy-source":"bucket/secret"}}`)}).want(t, 204, "")
	copied := func(source string) answer {
		t.Helper()
		return g.do(t, testCall{method: "PUT", target: "/bucket/copy", headers: map[string]string{"X-Amz-Copy-Source": source}})
	}
	for _, name := range []string{"bucket/secret", "/bucket/secret", "bucket/%73ecret", "bucket%2Fsecret", "bucket/secret?versionId=" + source} {
		copied(name).want(t, 403, "AccessDenied")
	}
	copied("/bucket/open").want(t, 200, "")
}

// blind is a backend that has lost sight of its objects.
type blind struct{ Backend }

func (blind) HeadObject(context.Context, string, string, string) (store.Object, error) {
	return store.Object{}, ashlar.E("test: head", "", ashlar.Unavailable, nil)
}

// TestUnknownTagsAllowNothing: where a condition asks for tags that cannot be
// read, nothing is decided.
func TestUnknownTagsAllowNothing(t *testing.T) {
	g := start(t, func(o *Options) { o.Backend = blind{o.Backend} }).withBucket(t, "bucket")
	g.do(t, testCall{method: "PUT", target: "/bucket/k", body: "x"}).want(t, 200, "")
	g.do(t, testCall{method: "PUT", target: "/bucket?policy", body: denial("s3:DeleteObject", `{"StringEquals":{"s3:ExistingObjectTag/keep":"yes"}}`)}).want(t, 204, "")
	if a := g.do(t, testCall{method: "DELETE", target: "/bucket/k"}); a.status != 503 {
		t.Errorf("delete: %d %s", a.status, a.body)
	}
	if _, there := g.stored("bucket", "k"); !there {
		t.Error("the object is deleted")
	}
}

// TestSignatureConditions: a policy sees how a form is signed.
func TestSignatureConditions(t *testing.T) {
	g := startReal(t, "bucket")
	f := testForm{bucket: "bucket", fields: [][2]string{{"key", "up/k"}}, conditions: anyForm, file: "x"}
	for _, c := range []struct {
		condition   string
		denied, old bool
	}{
		{`{"StringEquals":{"s3:signatureversion":"AWS"}}`, true, true},
		{`{"StringEquals":{"s3:signatureversion":"AWS"}}`, false, false},
		{`{"StringEquals":{"s3:signatureversion":"AWS4-HMAC-SHA256"}}`, true, false},
		{`{"StringEquals":{"s3:authType":"POST"}}`, true, false},
		{`{"NumericLessThan":{"s3:signatureAge":"600000"}}`, true, false},
		{`{"NumericGreaterThan":{"s3:signatureAge":"600000"}}`, false, false},
		{`{"NumericEquals":{"s3:signatureAge":"0"}}`, true, true},
	} {
		g.do(t, testCall{method: "PUT", target: "/bucket?policy", body: denial("s3:PutObject", c.condition)}).want(t, 204, "")
		f.old = c.old
		if a := f.send(t, g); (a.status == 403) != c.denied {
			t.Errorf("%s, HMAC-SHA1 %v: %d %s", c.condition, c.old, a.status, a.body)
		}
	}
}
