package s3gw

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestLifecycleDocuments(t *testing.T) {
	g := startReal(t, "bucket")
	put := func(rules string) answer {
		return g.do(t, testCall{method: "PUT", target: "/bucket?lifecycle", body: "<LifecycleConfiguration>" + rules + "</LifecycleConfiguration>"})
	}
	get := func() answer { return g.do(t, testCall{method: "GET", target: "/bucket?lifecycle"}) }
	rule := func(in string) string { return "<Rule><ID>r</ID><Status>Enabled</Status>" + in + "</Rule>" }
	const (
		days   = "<Expiration><Days>1</Days></Expiration>"
		filter = "<Filter><Prefix>p</Prefix></Filter>"
		tag    = "<Tag><Key>k</Key><Value>v</Value></Tag>"
		newer  = "<NoncurrentDays>3</NoncurrentDays><NewerNoncurrentVersions>2</NewerNoncurrentVersions>"
	)
	expire := func(in string) string { return rule(filter + "<Expiration>" + in + "</Expiration>") }
	old := func(in string) string {
		return rule(filter + "<NoncurrentVersionExpiration>" + in + "</NoncurrentVersionExpiration>")
	}
	abort := func(filter, days string) string {
		return rule(filter + "<AbortIncompleteMultipartUpload><DaysAfterInitiation>" + days + "</DaysAfterInitiation></AbortIncompleteMultipartUpload>")
	}
	get().want(t, 404, "NoSuchLifecycleConfiguration")
	for in, code := range map[string]string{
		"":                                    "MalformedXML",
		rule(filter):                          "InvalidRequest",
		rule(days):                            "MalformedXML", // neither filter nor prefix
		rule(filter + "<Prefix/>"):            "MalformedXML",
		rule(filter + days + days):            "MalformedXML",
		rule(filter + "<Surprise/>"):          "MalformedXML",
		rule(filter+days) + rule(filter+days): "InvalidArgument", // the same id
		strings.Replace(rule(filter+days), "Enabled", "enabled", 1):                    "MalformedXML",
		strings.Replace(rule(filter+days), ">r<", ">"+strings.Repeat("x", 256)+"<", 1): "InvalidArgument",
		expire(""):               "MalformedXML",
		expire("<Days>0</Days>"): "InvalidArgument",
		expire("<Days>x</Days>"): "MalformedXML",
		expire("<Days>1</Days><Date>2030-01-01T00:00:00Z</Date>"): "MalformedXML",
		expire("<Date>2030-01-01T01:00:00Z</Date>"):               "InvalidArgument",
		expire("<Date>soon</Date>"):                               "MalformedXML",
		old(""):                                                   "MalformedXML",
		old("<NoncurrentDays>0</NoncurrentDays>"):                 "InvalidArgument",
		old(strings.Replace(newer, ">2<", ">101<", 1)):            "InvalidArgument",
		abort(filter, "-1"):                                       "InvalidArgument",
		abort("<Filter>"+tag+"</Filter>", "1"):                    "InvalidRequest",
		rule("<Filter>" + tag + "</Filter><Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration>"):              "InvalidRequest",
		rule("<Filter><And><ObjectSizeGreaterThan>5</ObjectSizeGreaterThan><ObjectSizeLessThan>5</ObjectSizeLessThan></And></Filter>" + days): "InvalidRequest",
		rule("<Filter><And><And/></And></Filter>" + days):                                                   "MalformedXML",
		rule("<Filter><Prefix>a</Prefix><And><Prefix>b</Prefix></And></Filter>" + days):                     "MalformedXML",
		rule(filter + "<Transition><Date>20220927</Date><StorageClass>GLACIER</StorageClass></Transition>"): "MalformedXML",
	} {
		if got := put(in); got.status != 400 || got.code != code {
			t.Errorf("%.200s: %d %s, want %s", in, got.status, got.code, code)
		}
	}
	put(rule(filter+"<Transition><Days>1</Days><StorageClass>GLACIER</StorageClass></Transition>")).want(t, 501, "NotImplemented")
	get().want(t, 404, "NoSuchLifecycleConfiguration")
	for in, out := range map[string]string{
		rule(filter + days):      "<Filter><Prefix>p</Prefix></Filter>",
		rule("<Prefix/>" + days): "<Prefix></Prefix>",
		rule("<Filter/>" + days): "<Filter></Filter>",
		rule("<Filter><And><Prefix>p</Prefix>" + tag + "</And></Filter>" + days):                     "<Filter><And><Prefix>p</Prefix>" + tag + "</And></Filter>",
		rule("<Filter><Prefix>p</Prefix><ObjectSizeLessThan>7</ObjectSizeLessThan></Filter>" + days): "<Filter><And><Prefix>p</Prefix><ObjectSizeLessThan>7</ObjectSizeLessThan></And></Filter>",
		expire("<Date>2030-01-01T00:00:00Z</Date>"):                                                  "<Date>2030-01-01T00:00:00.000Z</Date>",
		expire("<ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker>"):                        "<ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker>",
		old(newer):         newer,
		abort(filter, "7"): "<DaysAfterInitiation>7</DaysAfterInitiation>",
	} {
		put(in).want(t, 200, "")
		if got := get().want(t, 200, ""); !strings.Contains(got.body, out) {
			t.Errorf("put %s, got %s", in, got.body)
		}
	}
	g.do(t, testCall{method: "DELETE", target: "/bucket?lifecycle"}).want(t, 204, "")
	get().want(t, 404, "NoSuchLifecycleConfiguration")
}

// What will expire is announced in every answer about it.
func TestExpiryIsAnnounced(t *testing.T) {
	g := startReal(t, "bucket")
	body := "<LifecycleConfiguration><Rule><ID>my rule</ID><Status>Enabled</Status><Filter><Prefix>e/</Prefix></Filter><Expiration><Days>3</Days></Expiration>" +
		"<AbortIncompleteMultipartUpload><DaysAfterInitiation>2</DaysAfterInitiation></AbortIncompleteMultipartUpload></Rule></LifecycleConfiguration>"
	g.do(t, testCall{method: "PUT", target: "/bucket?lifecycle", body: body}).want(t, 200, "")
	begun := time.Now()
	// The test may run across a midnight.
	said := func(got, format string, days int) bool {
		for _, now := range []time.Time{begun, time.Now()} {
			if got == fmt.Sprintf(format, now.UTC().AddDate(0, 0, days+1).Truncate(24*time.Hour).Format("Mon, 02 Jan 2006 15:04:05 GMT")) {
				return true
			}
		}
		return false
	}
	copied := map[string]string{"X-Amz-Copy-Source": "bucket/e/1"}
	for _, c := range []testCall{
		{method: "PUT", target: "/bucket/e/1", body: "x"}, {method: "GET", target: "/bucket/e/1"}, {method: "HEAD", target: "/bucket/e/1"},
		{method: "PUT", target: "/bucket/e/2", headers: copied},
	} {
		if got := g.do(t, c).header.Get("X-Amz-Expiration"); !said(got, `expiry-date="%s", rule-id="my%%20rule"`, 3) {
			t.Errorf("%s %s: %q", c.method, c.target, got)
		}
	}
	if got := g.do(t, testCall{method: "PUT", target: "/bucket/other", body: "x"}); got.header.Get("X-Amz-Expiration") != "" {
		t.Error("a key that no rule is for is announced")
	}
	up := g.do(t, testCall{method: "POST", target: "/bucket/e/up?uploads"}).want(t, 200, "")
	if !said(up.header.Get("X-Amz-Abort-Date"), "%s", 2) || up.header.Get("X-Amz-Abort-Rule-Id") != "my%20rule" {
		t.Error(up.header)
	}
}

func TestLifecycleEvery(t *testing.T) {
	for day, want := range map[time.Duration]time.Duration{
		0: time.Minute, 24 * time.Hour: time.Minute, 10 * time.Second: 500 * time.Millisecond, time.Second: 100 * time.Millisecond,
	} {
		if got := lifecycleEvery(day); got != want {
			t.Errorf("a day of %v: every %v, want %v", day, got, want)
		}
	}
}
