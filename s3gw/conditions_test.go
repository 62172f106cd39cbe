package s3gw

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"testing"
	"time"
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
