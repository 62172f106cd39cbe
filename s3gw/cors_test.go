package s3gw

import (
	"net/http"
	"strings"
	"testing"
)

const corsDoc = `<CORSConfiguration>
<CORSRule><ID>one</ID><AllowedOrigin>https://*.example.test</AllowedOrigin><AllowedMethod>GET</AllowedMethod><AllowedMethod>PUT</AllowedMethod>
<AllowedHeader>x-amz-*</AllowedHeader><AllowedHeader>Content-Type</AllowedHeader><ExposeHeader>ETag</ExposeHeader><MaxAgeSeconds>60</MaxAgeSeconds></CORSRule>
<CORSRule><AllowedOrigin>*</AllowedOrigin><AllowedMethod>HEAD</AllowedMethod></CORSRule></CORSConfiguration>`

// TestCORS: the rules are kept, answers to listed origins carry the headers,
// also refusals, and others carry none.
func TestCORS(t *testing.T) {
	g := startReal(t, "bucket")
	g.do(t, testCall{method: "GET", target: "/bucket?cors"}).want(t, 404, "NoSuchCORSConfiguration")
	g.do(t, testCall{method: "PUT", target: "/bucket?cors", body: corsDoc}).want(t, 200, "")
	if got := g.do(t, testCall{method: "GET", target: "/bucket?cors"}).want(t, 200, "").body; !strings.Contains(got, "<ID>one</ID><AllowedMethod>GET</AllowedMethod><AllowedMethod>PUT</AllowedMethod><AllowedOrigin>https://*.example.test") {
		t.Error(got)
	}
	g.do(t, testCall{method: "PUT", target: "/bucket/k", body: "x"}).want(t, 200, "")
	for _, c := range []struct {
		method, target, origin, allowed string
		status                          int
	}{ // a method may name the one that the page asks for
		{"GET DELETE", "/bucket/k", "https://a.example.test", "", 200}, {"DELETE PUT", "/bucket/none", "https://a.example.test", "https://a.example.test", 204},
		{"GET", "/bucket/k", "https://a.example.test", "https://a.example.test", 200}, {"GET", "/bucket/none", "https://a.example.test", "https://a.example.test", 404},
		{"GET", "/bucket/k", "https://evil.test", "", 200}, {"GET", "/bucket/k", "https://.example.tes", "", 200}, {"GET", "/bucket/k", "", "", 200},
		{"HEAD", "/bucket/k", "https://evil.test", "*", 200}, {"DELETE", "/bucket/none", "https://a.example.test", "", 204},
	} {
		headers := map[string]string{}
		if c.origin != "" {
			headers["Origin"] = c.origin
		}
		method, asked, _ := strings.Cut(c.method, " ")
		if asked != "" {
			headers["Access-Control-Request-Method"] = asked
		}
		a := g.do(t, testCall{method: method, target: c.target, headers: headers})
		if a.status != c.status || a.header.Get("Access-Control-Allow-Origin") != c.allowed || (a.header.Get("Access-Control-Allow-Credentials") == "true") != (c.allowed != "" && c.allowed != "*") {
			t.Errorf("%+v: %d %v", c, a.status, a.header)
		}
		if (a.header.Get("Vary") != "") != (c.allowed != "") {
			t.Errorf("%+v: Vary %q", c, a.header.Get("Vary"))
		}
	}
	g.do(t, testCall{method: "DELETE", target: "/bucket?cors"}).want(t, 204, "")
	if a := g.do(t, testCall{method: "GET", target: "/bucket/k", headers: map[string]string{"Origin": "https://a.example.test"}}); a.header.Get("Access-Control-Allow-Origin") != "" {
		t.Error("headers without rules")
	}
}

// TestPreflight: the one unsigned question, and everything that it refuses.
func TestPreflight(t *testing.T) {
	g := startReal(t, "bucket")
	ask := func(target string, headers ...string) answer {
		r, err := http.NewRequest("OPTIONS", g.url+target, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(headers); i += 2 {
			r.Header.Set(headers[i], headers[i+1])
		}
		return g.send(t, r)
	}
	const origin, method, requested = "Origin", "Access-Control-Request-Method", "Access-Control-Request-Headers"
	if a := ask("/bucket/k", origin, "https://a.example.test", method, "PUT").want(t, 403, "AccessForbidden"); !strings.Contains(a.body, "CORS is not enabled for this bucket") {
		t.Error(a.body)
	}
	g.do(t, testCall{method: "PUT", target: "/bucket?cors", body: corsDoc}).want(t, 200, "")
	a := ask("/bucket/k", origin, "https://a.example.test", method, "PUT", requested, "X-Amz-Date, content-type").want(t, 200, "")
	for name, value := range map[string]string{
		"Access-Control-Allow-Origin": "https://a.example.test", "Access-Control-Allow-Methods": "GET, PUT", "Access-Control-Max-Age": "60",
		"Access-Control-Allow-Headers": "x-amz-date, content-type", "Access-Control-Expose-Headers": "ETag",
	} {
		if a.header.Get(name) != value {
			t.Errorf("%s: %q, want %q", name, a.header.Get(name), value)
		}
	}
	g.do(t, testCall{method: "PUT", target: "/bucket?cors", body: strings.Replace(corsDoc, ">60<", ">-100<", 1)}).want(t, 200, "")
	if got := ask("/bucket/k", origin, "https://a.example.test", method, "PUT").want(t, 200, "").header.Get("Access-Control-Max-Age"); got != "-100" {
		t.Errorf("an age below zero, as S3 takes it: %q", got)
	}
	ask("/bucket/k", method, "PUT").want(t, 400, "BadRequest")
	ask("/bucket/k", origin, "https://a.example.test").want(t, 400, "BadRequest")
	ask("/bucket/k", origin, "https://a.example.test", method, "PATCH").want(t, 400, "BadRequest")
	ask("/bucket/k", origin, "https://a.example.test", method, "PUT", requested, "bad name").want(t, 400, "BadRequest")
	for _, refused := range [][]string{
		{"/bucket/k", origin, "https://a.example.test", method, "DELETE"}, {"/bucket/k", origin, "https://evil.test", method, "PUT"},
		{"/bucket/k", origin, "https://a.example.test", method, "PUT", requested, "authorization"},
		{"/", origin, "https://a.example.test", method, "GET"}, {"/no-such-bucket/k", origin, "https://a.example.test", method, "GET"},
	} {
		if a := ask(refused[0], refused[1:]...).want(t, 403, "AccessForbidden"); a.header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%v: %v", refused, a.header)
		}
	}
}

func TestBadCORS(t *testing.T) {
	g := startReal(t, "bucket")
	rule := func(s string) string { return "<CORSConfiguration><CORSRule>" + s + "</CORSRule></CORSConfiguration>" }
	const ok = "<AllowedOrigin>*</AllowedOrigin><AllowedMethod>GET</AllowedMethod>"
	for doc, code := range map[string]string{
		"": "MalformedXML", "<CORSConfiguration/>": "MalformedXML", rule(""): "MalformedXML", rule(ok + "<What/>"): "MalformedXML",
		rule("<AllowedOrigin>*</AllowedOrigin><AllowedMethod>PATCH</AllowedMethod>"):                        "InvalidRequest",
		rule("<AllowedOrigin>*.*</AllowedOrigin><AllowedMethod>GET</AllowedMethod>"):                        "InvalidRequest",
		rule(ok + "<AllowedHeader>*a*</AllowedHeader>"):                                                     "InvalidRequest",
		rule(ok + "<AllowedHeader>bad name</AllowedHeader>"):                                                "InvalidRequest",
		rule(ok + "<ExposeHeader>X[Key]</ExposeHeader>"):                                                    "InvalidRequest",
		rule(ok + "<ExposeHeader>x-*</ExposeHeader>"):                                                       "InvalidRequest",
		rule(ok + "<ExposeHeader>a&#xa;X-Y: z</ExposeHeader>"):                                              "InvalidRequest",
		rule(ok + "<MaxAgeSeconds>2147483648</MaxAgeSeconds>"):                                              "MalformedXML",
		"<CORSConfiguration>" + strings.Repeat("<CORSRule>"+ok+"</CORSRule>", 101) + "</CORSConfiguration>": "MalformedXML",
	} {
		g.do(t, testCall{method: "PUT", target: "/bucket?cors", body: doc}).want(t, 400, code)
	}
}
