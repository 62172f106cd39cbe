package s3gw

import (
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"

	"ashlar/s3gw/s3"
	"ashlar/s3gw/sigv4"
	"ashlar/s3gw/store"
)

// Websites: what a browser gets under bucket.website-domain. It reads with GET and
// HEAD what everybody may read, and nothing else: credentials, the query and all
// x-amz-* headers mean nothing here, so no operation of the REST interface can be
// reached.

// site is a request under a website domain.
type site struct {
	*s3.Website // nil until it is known
	// host is bucket.website-domain; port is empty or begins with a colon.
	host, port string
	// custom is why the error document could not be answered.
	custom *s3.Error
}

// websiteRoute stands for every request under a website domain.
var websiteRoute = route{op: "GetWebsite", need: "s3:GetObject", method: "GET", on: onObject}

// serveWebsite answers a request under a website domain.
func (c *call) serveWebsite(bucket string) (err error) {
	c.route, c.auth, c.query = &websiteRoute, &sigv4.Auth{}, nil
	for name := range c.r.Header {
		if strings.HasPrefix(name, "X-Amz-") || strings.HasPrefix(name, "X-Ashlar-") || name == "Authorization" {
			delete(c.r.Header, name)
		}
	}
	if c.r.Method != http.MethodGet && c.r.Method != http.MethodHead {
		return s3.E(s3.MethodNotAllowed, "").With("Method", c.r.Method).With("ResourceType", "OBJECT").WithHeader("Allow", "GET, HEAD")
	}
	if c.bucket, err = s3.ParseBucket(bucket); err != nil {
		return err
	}
	asked, ok := s3.Unescape(strings.TrimPrefix(c.r.URL.EscapedPath(), "/"), false)
	if !ok {
		return s3.E(s3.InvalidURI, "")
	}
	if err = c.identifySender(); err != nil {
		return err
	}
	if err = c.admitUser(); err != nil {
		return err
	}
	c.allowOrigin()
	if err = c.openSession(); err != nil {
		return err
	}
	a, err := c.access(c.bucket)
	if err != nil {
		return withBucket(err, c.bucket)
	}
	if a.website == nil {
		return s3.E(s3.NoSuchWebsiteConfiguration, "").With("BucketName", string(c.bucket))
	}
	if err = c.admitBucket(); err != nil {
		return err
	}
	c.admit()
	c.site.Website = a.website
	if all := a.website.All; all != nil {
		return c.redirect(all, asked)
	}
	if rule := a.website.Match(asked, 0); rule != nil {
		return c.redirect(&rule.To, rule.Target(asked))
	}
	return c.servePage(asked)
}

// servePage answers with the page that was asked for.
func (c *call) servePage(asked string) error {
	name, directory := asked, asked == "" || strings.HasSuffix(asked, "/")
	if directory {
		name += c.site.Index
	}
	o, err := c.webPage(name)
	if err != nil {
		return c.pageMissing(asked, directory, err)
	}
	if o.WebsiteRedirect != "" {
		c.set("Location", o.WebsiteRedirect)
		return c.empty(http.StatusMovedPermanently)
	}
	return c.answerObject(o, func(r s3.Range) (io.ReadCloser, error) {
		return c.s.backend.OpenObject(c.ctx, o, r.Offset, r.Length)
	})
}

// webPage returns the object under a key if everybody may read it.
func (c *call) webPage(name string) (*store.Object, error) {
	key, err := s3.ParseKey(name)
	if err != nil {
		return nil, err
	}
	c.key = key
	r := right{action: websiteRoute.need, bucket: c.bucket, key: key}
	if err := c.demand(&r); err != nil {
		return nil, c.orAbsent(&r, err)
	}
	o, err := c.headObject()
	if err != nil {
		return nil, c.veil(err)
	}
	return &o, c.unlock(&o)
}

// pageMissing answers where a page cannot be read.
func (c *call) pageMissing(asked string, directory bool, cause error) error {
	e := s3.Classify(cause)
	status := e.Code.Status()
	if !directory && (status == http.StatusNotFound || status == http.StatusForbidden) {
		_, err := c.webPage(asked + "/" + c.site.Index)
		if err == nil {
			c.set("Location", "/"+escapedKey(asked)+"/")
			return c.empty(http.StatusFound)
		}
		if s3.Classify(err).Code.Status() >= 500 {
			return err
		}
	}
	if rule := c.site.Match(asked, status); rule != nil {
		return c.redirect(&rule.To, rule.Target(asked))
	}
	if status >= 500 || c.site.Error == "" {
		return cause
	}
	return c.errorDocument(e, status)
}

// errorDocument answers with the website's own document for an error.
func (c *call) errorDocument(e *s3.Error, status int) error {
	o, err := c.webPage(c.site.Error)
	var src io.ReadCloser
	if err == nil && o.Bytes > 0 && c.r.Method != http.MethodHead {
		src, err = c.s.backend.OpenObject(c.ctx, o, 0, o.Bytes)
	}
	if err != nil {
		c.site.custom = s3.Classify(err)
		return e
	}
	c.failed = e
	c.objectHeaders(o)
	c.errorHeaders(e)
	c.set("Content-Length", strconv.FormatUint(o.Bytes, 10))
	if src == nil {
		c.writeHead(status)
		return nil
	}
	defer src.Close()
	return c.stream(status, src, o.Bytes)
}

// errorHeaders tell a program what an error page tells people.
func (c *call) errorHeaders(e *s3.Error) {
	c.set("X-Amz-Error-Code", e.Code.String())
	c.set("X-Amz-Error-Message", e.Text())
}

// redirect sends the client elsewhere. Where neither protocol nor host change, it
// is told the path alone: we cannot know what it uses before a balancer.
func (c *call) redirect(to *s3.Redirect, key string) error {
	location := "/" + escapedKey(key)
	if to.Protocol != "" || to.Host != "" {
		scheme, host := "http", to.Host
		if c.r.TLS != nil {
			scheme = "https"
		}
		if host == "" {
			host = c.site.host
			if to.Protocol == scheme {
				host += c.site.port
			}
		}
		if to.Protocol != "" {
			scheme = to.Protocol
		}
		location = scheme + "://" + host + location
	}
	c.set("Location", location)
	if to.Status != 0 {
		return c.empty(to.Status)
	}
	return c.empty(http.StatusMovedPermanently)
}

// escapedKey writes a key as a path without its first slash. A key that begins with
// one must not make a path of two: that is another host.
func escapedKey(key string) string {
	if rest, slash := strings.CutPrefix(key, "/"); slash {
		return "%2F" + escaped(rest)
	}
	return escaped(key)
}

// websiteOfHost returns the bucket of a request under a website domain; it is empty
// under the domain itself. Of a domain of either kind that ends another one, the
// longer one is meant.
func (c *call) websiteOfHost() (bucket string, ok bool) {
	if len(c.s.websites) == 0 {
		return "", false
	}
	host, port := c.r.Host, ""
	if h, p, err := net.SplitHostPort(host); err == nil {
		host, port = h, ":"+p
	}
	host = strings.ToLower(host)
	d := longestDomain(host, c.s.websites)
	if d == "" || len(longestDomain(host, c.s.domains)) > len(d) {
		return "", false
	}
	c.site = &site{host: host, port: port}
	return strings.TrimSuffix(strings.TrimSuffix(host, d), "."), true
}

// longestDomain returns the longest of the domains that a host is under, or is.
func longestDomain(host string, domains []string) (longest string) {
	for _, d := range domains {
		if len(d) > len(longest) && (host == d || strings.HasSuffix(host, "."+d)) {
			longest = d
		}
	}
	return longest
}

// domain is a name of the configuration as hosts are compared with it.
func domain(name string) string { return strings.ToLower(strings.Trim(name, ".")) }

// checkDomains refuses a name that would mean two things.
func (c *Config) checkDomains() error {
	for _, d := range c.WebsiteDomains {
		for _, rest := range c.Domains {
			if domain(d) == domain(rest) {
				return errors.New(d + " is among domains and website-domains: give websites a name of their own")
			}
		}
	}
	return nil
}
