package s3gw

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"ashlar/s3gw/s3"
)

const testWebsites = "web.example.test"

func websiteDocument(in string) string {
	return "<WebsiteConfiguration>" + in + "</WebsiteConfiguration>"
}

const (
	indexDocument = "<IndexDocument><Suffix>index.html</Suffix></IndexDocument>"
	errorDocument = "<ErrorDocument><Key>error.html</Key></ErrorDocument>"
)

// startSite serves bucket "site" as a website: all of it public but what begins
// with "private".
func startSite(t *testing.T, config string) *gateway {
	t.Helper()
	g := startReal(t, "site", func(o *Options) { o.WebsiteDomains = []string{testWebsites, "s3.example.test.web"} })
	g.do(t, testCall{method: "PUT", target: "/site?publicAccessBlock", body: "<PublicAccessBlockConfiguration/>"}).want(t, 200, "")
	g.do(t, testCall{method: "PUT", target: "/site?policy", body: `{"Version":"2012-10-17","Statement":[
		{"Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::site/*"},
		{"Effect":"Deny","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::site/private*"}]}`}).want(t, 204, "")
	for key, body := range map[string]string{
		"index.html": "home", "docs/index.html": "docs", "docs/a b.html": "page", "error.html": "sorry", "private.html": "secret", "%2Fevil/index.html": "x",
	} {
		g.do(t, testCall{method: "PUT", target: "/site/" + strings.ReplaceAll(key, " ", "%20"), body: body, headers: map[string]string{"Content-Type": "text/html"}}).want(t, 200, "")
	}
	g.do(t, testCall{method: "PUT", target: "/site/moved", headers: map[string]string{"X-Amz-Website-Redirect-Location": "/docs/"}}).want(t, 200, "")
	if config != "" {
		g.do(t, testCall{method: "PUT", target: "/site?website", body: websiteDocument(config)}).want(t, 200, "")
	}
	return g
}

// visit asks as a browser does, and follows no redirect.
func (g *gateway) visit(t *testing.T, method, host, target string, headers map[string]string) answer {
	t.Helper()
	r, err := http.NewRequest(method, g.url+target, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = host
	for k, v := range headers {
		r.Header.Set(k, v)
	}
	client := *g.http
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	direct := *g
	direct.http = &client
	return direct.send(t, r)
}

const siteHost = "site." + testWebsites

func TestWebsite(t *testing.T) {
	g := startSite(t, indexDocument)
	for _, c := range []struct {
		method, target string
		status         int
		want           string // of the body; of Location for a redirect
	}{
		{"GET", "/", 200, "home"}, {"GET", "/docs/", 200, "docs"}, {"GET", "/docs/a%20b.html", 200, "page"}, {"HEAD", "/", 200, ""},
		{"GET", "/docs", 302, "/docs/"}, {"HEAD", "/docs", 302, "/docs/"}, {"GET", "//evil", 302, "/%2Fevil/"}, {"GET", "/moved", 301, "/docs/"},
		{"GET", "/missing", 403, "Code: AccessDenied"}, {"GET", "/missing/", 403, "Code: AccessDenied"}, {"GET", "/private.html", 403, "Code: AccessDenied"},
		{"GET", "/?list-type=2", 200, "home"}, {"GET", "/?acl", 200, "home"}, {"GET", "/?X-Amz-Signature=x&X-Amz-Algorithm=y", 200, "home"},
		{"PUT", "/index.html", 405, "Code: MethodNotAllowed"}, {"DELETE", "/index.html", 405, "Code: MethodNotAllowed"}, {"POST", "/?delete", 405, "Method: POST"},
		{"OPTIONS", "/", 405, "Method: OPTIONS"}, {"GET", "/" + strings.Repeat("k", 1025), 400, "Code: KeyTooLongError"}, {"GET", "/%ff", 400, "Code: InvalidURI"},
	} {
		a := g.visit(t, c.method, siteHost, c.target, nil)
		got := a.body
		if c.status/100 == 3 {
			got = a.header.Get("Location")
		}
		if a.status != c.status || c.status < 400 && got != c.want || !strings.Contains(got, c.want) {
			t.Errorf("%s %.40s: %d %q, want %d %q", c.method, c.target, a.status, got, c.status, c.want)
		}
	}
	page := g.visit(t, "GET", siteHost, "/missing", nil)
	if id := page.header.Get("X-Amz-Request-Id"); id == "" || !strings.Contains(page.body, "<li>RequestId: "+id+"</li>") ||
		!strings.HasPrefix(page.body, "<html>\n<head><title>403 Forbidden</title>") || page.header.Get("X-Amz-Error-Code") != "AccessDenied" ||
		!strings.HasPrefix(page.header.Get("Content-Type"), "text/html") {
		t.Errorf("%v %s", page.header, page.body)
	}
	// Credentials that are sent all the same mean nothing, good or bad ones.
	signed := g.request(t, forms[0], testCall{method: "GET", target: "/private.html", headers: map[string]string{"Host": siteHost}})
	g.send(t, signed).want(t, 403, "")
	if a := g.visit(t, "GET", siteHost, "/", map[string]string{"Authorization": "nonsense", "X-Amz-Date": "x", "X-Amz-Checksum-Mode": "ENABLED"}); a.status != 200 {
		t.Errorf("with bad credentials: %d %s", a.status, a.body)
	}
	whole := g.visit(t, "GET", siteHost, "/", nil)
	if a := g.visit(t, "GET", siteHost, "/", map[string]string{"If-None-Match": whole.header.Get("ETag")}); a.status != 304 {
		t.Error(a.status)
	}
	if a := g.visit(t, "GET", siteHost+":80", "/", map[string]string{"Range": "bytes=1-2"}); a.status != 206 || a.body != "om" {
		t.Error(a.status, a.body)
	}
	// Whoever may list learns that there is nothing.
	g.do(t, testCall{method: "PUT", target: "/site?policy", body: `{"Version":"2012-10-17","Statement":
		{"Effect":"Allow","Principal":"*","Action":["s3:GetObject","s3:ListBucket"],"Resource":["arn:aws:s3:::site","arn:aws:s3:::site/*"]}}`}).want(t, 204, "")
	if a := g.visit(t, "GET", siteHost, "/<no>", nil); a.status != 404 || !strings.Contains(a.body, "Code: NoSuchKey") || !strings.Contains(a.body, "Key: &lt;no&gt;") {
		t.Error(a.status, a.body)
	}
	g.do(t, testCall{method: "DELETE", target: "/site?website"}).want(t, 204, "")
	if a := g.visit(t, "GET", siteHost, "/", nil); a.status != 404 || !strings.Contains(a.body, "Code: NoSuchWebsiteConfiguration") {
		t.Error(a.status, a.body)
	}
}

// TestWebsiteHosts: which door a name leads to.
func TestWebsiteHosts(t *testing.T) {
	g := startSite(t, indexDocument)
	for host, want := range map[string]string{
		siteHost: "200 home", strings.ToUpper(siteHost): "200 home", siteHost + ":8080": "200 home", "nobody." + testWebsites: "404 NoSuchBucket",
		testWebsites: "400 InvalidBucketName", "a.b..c." + testWebsites: "400 InvalidBucketName",
	} {
		a := g.visit(t, "GET", host, "/", nil)
		status, text, _ := strings.Cut(want, " ")
		if strconv.Itoa(a.status) != status || !strings.Contains(a.body, text) {
			t.Errorf("%s: %d %s, want %s", host, a.status, a.body, want)
		}
	}
	// The REST interface is where it was.
	g.visit(t, "GET", "site."+testDomain, "/", nil).want(t, 403, "AccessDenied")
	g.visit(t, "GET", "elsewhere", "/", nil).want(t, 403, "AccessDenied")
	g.do(t, testCall{method: "GET", target: "/?list-type=2", headers: map[string]string{"Host": "site." + testDomain}}).want(t, 200, "")
	for _, c := range []struct {
		websites, rest []string
		host           string
		website        bool
	}{
		{[]string{"example.test"}, []string{"s3.example.test"}, "b.s3.example.test", false},
		{[]string{"example.test"}, []string{"s3.example.test"}, "s3.example.test", false},
		{[]string{"example.test"}, []string{"s3.example.test"}, "b.example.test", true},
		{[]string{"web.s3.example.test"}, []string{"s3.example.test"}, "b.web.s3.example.test", true},
		{[]string{"web.s3.example.test"}, []string{"s3.example.test"}, "b.s3.example.test", false},
		{[]string{"web.s3.example.test"}, nil, "notweb.s3.example.test", false},
	} {
		s := New(Options{Backend: untouched{}, Credentials: keyring{}, WebsiteDomains: c.websites, Domains: c.rest})
		r, _ := http.NewRequest("GET", "http://"+c.host+"/", nil)
		if _, got := (&call{s: s, r: r}).websiteOfHost(); got != c.website {
			t.Errorf("%s with %v and %v: website %v", c.host, c.websites, c.rest, got)
		}
	}
	both := Config{Domains: []string{"Example.test."}, WebsiteDomains: []string{"example.test"}}
	if both.checkDomains() == nil {
		t.Error("one name for both was taken")
	}
}

func TestWebsiteErrorDocument(t *testing.T) {
	g := startSite(t, indexDocument+errorDocument)
	a := g.visit(t, "GET", siteHost, "/missing", map[string]string{"Range": "bytes=0-0"})
	if a.status != 403 || a.body != "sorry" || a.header.Get("Content-Type") != "text/html" || a.header.Get("X-Amz-Error-Code") != "AccessDenied" {
		t.Error(a.status, a.body, a.header)
	}
	if a := g.visit(t, "HEAD", siteHost, "/missing", nil); a.status != 403 || a.header.Get("Content-Length") != "5" {
		t.Error(a.status, a.header)
	}
	g.do(t, testCall{method: "DELETE", target: "/site/error.html"}).want(t, 204, "")
	a = g.visit(t, "GET", siteHost, "/missing", nil)
	if a.status != 403 || !strings.Contains(a.body, "Retrieve a Custom Error Document</h3>\n<ul>\n<li>Code: AccessDenied</li>") {
		t.Error(a.status, a.body)
	}
}

func TestWebsiteRouting(t *testing.T) {
	rule := func(condition, redirect string) string {
		if condition != "" {
			condition = "<Condition>" + condition + "</Condition>"
		}
		return "<RoutingRule>" + condition + "<Redirect>" + redirect + "</Redirect></RoutingRule>"
	}
	const prefix, status = "<KeyPrefixEquals>", "<HttpErrorCodeReturnedEquals>403</HttpErrorCodeReturnedEquals>"
	g := startSite(t, indexDocument+errorDocument+"<RoutingRules>"+
		rule(prefix+"old/</KeyPrefixEquals>", "<ReplaceKeyPrefixWith>docs/</ReplaceKeyPrefixWith>")+
		rule(prefix+"away</KeyPrefixEquals>", "<HostName>other.test</HostName><HttpRedirectCode>307</HttpRedirectCode>")+
		rule(prefix+"safe/</KeyPrefixEquals>", "<Protocol>https</Protocol>")+
		rule(prefix+"same/</KeyPrefixEquals>", "<Protocol>http</Protocol>")+
		rule(prefix+"cut/</KeyPrefixEquals>", "<ReplaceKeyPrefixWith></ReplaceKeyPrefixWith>")+
		rule(prefix+"lost/</KeyPrefixEquals>"+status, "<ReplaceKeyWith>docs/ü</ReplaceKeyWith>")+
		"</RoutingRules>")
	for target, want := range map[string]string{
		"/old/a%20b": "301 /docs/a%20b", "/old/": "301 /docs/", "/away/x": "307 http://other.test/away/x", "/safe/k": "301 https://" + siteHost + "/safe/k",
		"/same/k": "301 http://" + siteHost + ":81/same/k", "/lost/x": "301 /docs/%C3%BC", "/missing": "403 ", "/docs/": "200 ",
		"/cut//evil.test/": "301 /%2Fevil.test/", "/old/%0d%0aSet-Cookie:x": "301 /docs/%0D%0ASet-Cookie%3Ax",
	} {
		a := g.visit(t, "GET", siteHost+":81", target, nil)
		if got := fmt.Sprintf("%d %s", a.status, a.header.Get("Location")); got != want {
			t.Errorf("%s: %q, want %q", target, got, want)
		}
	}
	// A rule for errors does not hide what is there.
	g.do(t, testCall{method: "PUT", target: "/site/lost/x", body: "found"}).want(t, 200, "")
	if a := g.visit(t, "GET", siteHost, "/lost/x", nil); a.body != "found" {
		t.Error(a.status, a.body)
	}
	g.do(t, testCall{method: "PUT", target: "/site?website", body: websiteDocument("<RedirectAllRequestsTo><HostName>else.test</HostName></RedirectAllRequestsTo>")}).want(t, 200, "")
	if a := g.visit(t, "GET", siteHost, "/a/b", nil); a.status != 301 || a.header.Get("Location") != "http://else.test/a/b" {
		t.Error(a.status, a.header)
	}
}

func TestWebsiteDocuments(t *testing.T) {
	g := startReal(t, "bucket")
	put := func(in string) answer {
		return g.do(t, testCall{method: "PUT", target: "/bucket?website", body: websiteDocument(in)})
	}
	get := func() answer { return g.do(t, testCall{method: "GET", target: "/bucket?website"}) }
	rules := func(in string) string {
		return indexDocument + "<RoutingRules><RoutingRule>" + in + "</RoutingRule></RoutingRules>"
	}
	redirect := func(in string) string { return rules("<Redirect>" + in + "</Redirect>") }
	all := func(in string) string { return "<RedirectAllRequestsTo>" + in + "</RedirectAllRequestsTo>" }
	get().want(t, 404, "NoSuchWebsiteConfiguration")
	for in, code := range map[string]string{
		"": "InvalidArgument", "<Surprise/>": "MalformedXML", indexDocument + indexDocument: "MalformedXML", errorDocument: "InvalidArgument",
		"<IndexDocument/>": "MalformedXML", "<IndexDocument><Suffix/></IndexDocument>": "InvalidArgument",
		"<IndexDocument><Suffix>a/b</Suffix></IndexDocument>": "InvalidArgument", indexDocument + "<ErrorDocument><Key/></ErrorDocument>": "InvalidArgument",
		indexDocument + "<ErrorDocument/>": "MalformedXML", indexDocument + "<RoutingRules/>": "MalformedXML",
		indexDocument + all("<HostName>h</HostName>"): "InvalidArgument", all(""): "MalformedXML", all("<HostName/>"): "InvalidRequest",
		all("<HostName>h</HostName><Protocol>ftp</Protocol>"): "InvalidRequest", all("<HostName>h/x?</HostName>"): "InvalidRequest",
		rules(""): "MalformedXML", redirect(""): "MalformedXML", redirect("<HostName>a\r\nb</HostName>"): "InvalidRequest",
		redirect("<Protocol>gopher</Protocol>"): "InvalidRequest", redirect("<Protocol/>"): "InvalidRequest",
		redirect("<HttpRedirectCode>300</HttpRedirectCode>"): "InvalidRequest", redirect("<HttpRedirectCode>404</HttpRedirectCode>"): "InvalidRequest",
		redirect("<ReplaceKeyWith>a</ReplaceKeyWith><ReplaceKeyPrefixWith>b</ReplaceKeyPrefixWith>"):                                                        "InvalidRequest",
		rules("<Condition/><Redirect><HostName>h</HostName></Redirect>"):                                                                                    "InvalidRequest",
		rules("<Condition><HttpErrorCodeReturnedEquals>200</HttpErrorCodeReturnedEquals></Condition><Redirect><HostName>h</HostName></Redirect>"):           "InvalidRequest",
		indexDocument + "<RoutingRules>" + strings.Repeat("<RoutingRule><Redirect><HostName>h</HostName></Redirect></RoutingRule>", 51) + "</RoutingRules>": "InvalidRequest",
	} {
		if got := put(in); got.status != 400 || got.code != code {
			t.Errorf("%.200s: %d %s, want %s", in, got.status, got.code, code)
		}
	}
	get().want(t, 404, "NoSuchWebsiteConfiguration")
	for _, in := range []string{
		indexDocument, indexDocument + errorDocument, all("<HostName>h</HostName>"), all("<HostName>h.test:81</HostName><Protocol>https</Protocol>"),
		rules("<Condition><KeyPrefixEquals>a&amp;</KeyPrefixEquals><HttpErrorCodeReturnedEquals>404</HttpErrorCodeReturnedEquals></Condition>" +
			"<Redirect><Protocol>http</Protocol><HostName>h</HostName><ReplaceKeyPrefixWith>b/</ReplaceKeyPrefixWith><HttpRedirectCode>302</HttpRedirectCode></Redirect>"),
		redirect("<ReplaceKeyWith>k</ReplaceKeyWith>"),
	} {
		put(in).want(t, 200, "")
		if got := get().want(t, 200, ""); !strings.HasSuffix(got.body, `/2006-03-01/">`+in+"</WebsiteConfiguration>") {
			t.Errorf("put %s, got %s", in, got.body)
		}
	}
	g.do(t, testCall{method: "DELETE", target: "/bucket?website"}).want(t, 204, "")
	get().want(t, 404, "NoSuchWebsiteConfiguration")
}

// FuzzWebsite: what is kept of any document means what the document meant.
func FuzzWebsite(f *testing.F) {
	f.Add([]byte(websiteDocument(indexDocument+errorDocument)), "k")
	f.Add([]byte(websiteDocument(indexDocument+"<RoutingRules><RoutingRule><Condition><KeyPrefixEquals>a</KeyPrefixEquals></Condition><Redirect><ReplaceKeyPrefixWith>b</ReplaceKeyPrefixWith></Redirect></RoutingRule></RoutingRules>")), "a/b")
	f.Fuzz(func(t *testing.T, doc []byte, key string) {
		w, err := s3.ParseWebsite(doc)
		if err != nil {
			return
		}
		kept, err := s3.CheckWebsite(doc)
		if err != nil {
			t.Fatal(err)
		}
		again, err := s3.ParseWebsite(kept)
		if err != nil {
			t.Fatalf("%q is kept as %q: %v", doc, kept, err)
		}
		for _, status := range []int{0, 403, 404} {
			a, b := w.Match(key, status), again.Match(key, status)
			if (a == nil) != (b == nil) || a != nil && a.Target(key) != b.Target(key) {
				t.Fatalf("%q is kept as %q: %v and %v", doc, kept, a, b)
			}
		}
	})
}
