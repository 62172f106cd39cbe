package s3gw

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestObjectLockOverHTTP walks a bucket with object lock through every request
// that locks have, and every way to get rid of a version.
func TestObjectLockOverHTTP(t *testing.T) {
	g := startReal(t, "bucket")
	locked := map[string]string{"X-Amz-Bucket-Object-Lock-Enabled": "true"}
	g.do(t, testCall{method: "PUT", target: "/locked", headers: locked}).want(t, 200, "")
	call := func(method, target, body string, headers ...string) answer {
		h := map[string]string{}
		for i := 0; i < len(headers); i += 2 {
			h[headers[i]] = headers[i+1]
		}
		return g.do(t, testCall{method: method, target: target, body: body, headers: h})
	}
	call("GET", "/locked?object-lock", "").want(t, 200, "")
	call("GET", "/bucket?object-lock", "").want(t, 404, "ObjectLockConfigurationNotFoundError")
	call("PUT", "/locked?versioning", "<VersioningConfiguration><Status>Suspended</Status></VersioningConfiguration>").want(t, 409, "InvalidBucketState")
	config := func(rule string) string {
		return "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled>" + rule + "</ObjectLockConfiguration>"
	}
	retention := func(in string) string { return "<Rule><DefaultRetention>" + in + "</DefaultRetention></Rule>" }
	for in, code := range map[string]string{
		config(retention("<Mode>GOVERNANCE</Mode><Days>1</Days><Years>1</Years>")): "MalformedXML",
		config(retention("<Mode>GOVERNANCE</Mode>")):                               "MalformedXML",
		config(retention("<Mode>governance</Mode><Days>1</Days>")):                 "MalformedXML",
		config(retention("<Mode>GOVERNANCE</Mode><Days>0</Days>")):                 "InvalidRetentionPeriod",
		config(retention("<Mode>GOVERNANCE</Mode><Days>40000</Days>")):             "InvalidRetentionPeriod",
		strings.Replace(config(""), ">Enabled<", ">enabled<", 1):                   "MalformedXML",
		"<ObjectLockConfiguration/>":                                               "MalformedXML",
	} {
		call("PUT", "/locked?object-lock", in).want(t, 400, code)
	}
	call("PUT", "/bucket?object-lock", config("")).want(t, 409, "InvalidBucketState")
	call("PUT", "/locked?object-lock", config(retention("<Mode>GOVERNANCE</Mode><Days>1</Days>"))).want(t, 200, "")
	if got := call("GET", "/locked?object-lock", ""); !strings.Contains(got.body, "<Mode>GOVERNANCE</Mode><Days>1</Days>") {
		t.Error(got.body)
	}

	const sum = "X-Amz-Checksum-Crc32"
	const crcOfX = "jNwWgw=="
	until := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	mode, date, hold := "X-Amz-Object-Lock-Mode", "X-Amz-Object-Lock-Retain-Until-Date", "X-Amz-Object-Lock-Legal-Hold"
	for _, h := range [][]string{
		{mode, "GOVERNANCE"}, {date, until}, {mode, "governance", date, until}, {mode, "COMPLIANCE", date, "tomorrow"},
		{mode, "COMPLIANCE", date, "2020-01-01T00:00:00Z"}, {hold, "on"},
	} {
		call("PUT", "/locked/k", "x", append(h, sum, crcOfX)...).want(t, 400, "InvalidArgument")
	}
	call("PUT", "/locked/k", "x", mode, "COMPLIANCE", date, until).want(t, 400, "InvalidRequest")
	call("PUT", "/bucket/k", "x", hold, "ON", sum, crcOfX).want(t, 400, "InvalidRequest")
	call("PUT", "/bucket/k", "x").want(t, 200, "")
	for _, sub := range []string{"retention", "legal-hold"} {
		call("GET", "/bucket/k?"+sub, "").want(t, 400, "InvalidRequest")
	}

	def := call("PUT", "/locked/default", "x").want(t, 200, "").header.Get("X-Amz-Version-Id")
	head := call("HEAD", "/locked/default", "")
	if head.header.Get(mode) != "GOVERNANCE" || head.header.Get(date) == "" || head.header.Get(hold) != "" {
		t.Error("default retention:", head.header)
	}
	call("DELETE", "/locked/default?versionId="+def, "").want(t, 403, "AccessDenied")
	batch := call("POST", "/locked?delete", "<Delete><Object><Key>default</Key><VersionId>"+def+"</VersionId></Object></Delete>",
		"Content-Md5", md5Base64("<Delete><Object><Key>default</Key><VersionId>"+def+"</VersionId></Object></Delete>"))
	if batch.status != 200 || !strings.Contains(batch.body, "<Code>AccessDenied</Code>") {
		t.Error(batch.status, batch.body)
	}
	call("GET", "/locked/default?legal-hold", "").want(t, 404, "NoSuchObjectLockConfiguration")
	call("DELETE", "/locked/default?versionId="+def, "", "X-Amz-Bypass-Governance-Retention", "true").want(t, 204, "")

	v := call("PUT", "/locked/k", "x", mode, "COMPLIANCE", date, until, hold, "ON", sum, crcOfX).want(t, 200, "").header.Get("X-Amz-Version-Id")
	if got := call("GET", "/locked/k?retention", ""); !strings.Contains(got.body, "<Mode>COMPLIANCE</Mode>") {
		t.Error(got.body)
	}
	call("PUT", "/locked/k?legal-hold&versionId="+v, "<LegalHold><Status>off</Status></LegalHold>").want(t, 400, "MalformedXML")
	call("PUT", "/locked/k?legal-hold&versionId="+v, "<LegalHold><Status>OFF</Status></LegalHold>").want(t, 200, "")
	if got := call("GET", "/locked/k?legal-hold", ""); !strings.Contains(got.body, "<Status>OFF</Status>") {
		t.Error(got.body)
	}
	sooner := time.Now().Add(time.Minute).UTC().Format(time.RFC3339)
	shorter := "<Retention><Mode>COMPLIANCE</Mode><RetainUntilDate>" + sooner + "</RetainUntilDate></Retention>"
	call("PUT", "/locked/k?retention", shorter, "X-Amz-Bypass-Governance-Retention", "true").want(t, 403, "AccessDenied")
	call("PUT", "/locked/k?retention", "<Retention><Mode>COMPLIANCE</Mode></Retention>").want(t, 400, "MalformedXML")
	call("PUT", "/locked/k?retention&versionId=0123456789abcdef0123456789abcdef", shorter).want(t, 404, "NoSuchVersion")
	call("DELETE", "/locked/k?versionId="+v, "", "X-Amz-Bypass-Governance-Retention", "true").want(t, 403, "AccessDenied")
	call("PUT", "/locked/k", "x").want(t, 200, "")
	call("DELETE", "/locked/k", "").want(t, 204, "")
	if got := call("GET", "/locked/k?versionId="+v, ""); got.status != http.StatusOK || got.body != "x" {
		t.Error("the locked version is not readable:", got.status, got.body)
	}
	call("DELETE", "/locked", "").want(t, 409, "BucketNotEmpty")
}
