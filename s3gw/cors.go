package s3gw

import (
	"net/http"
	"slices"
	"strings"

	"ashlar/s3gw/s3"
)

// corsRules returns the CORS rules of the bucket, nil if it has none.
func (c *call) corsRules() ([]s3.CORSRule, error) {
	doc, err := c.s.backend.Setting(c.ctx, string(c.bucket), settingCORS)
	if err != nil || doc == nil {
		return nil, err
	}
	return s3.ParseCORS(doc)
}

// allowOrigin finds the CORS headers of the answer to a page of another origin.
// They go out with errors too: without them the page could not read why. Rules
// that cannot be read allow nothing.
func (c *call) allowOrigin() {
	origin := c.header("Origin")
	if origin == "" || c.bucket == "" {
		return
	}
	rules, err := c.corsRules()
	if err != nil {
		return
	}
	method := c.header("Access-Control-Request-Method") // also without a preflight, as on AWS
	if method == "" {
		method = c.r.Method
	}
	if headers, ok := s3.MatchCORS(rules, origin, method, nil); ok {
		c.cors = headers
		c.setCORS()
	}
}

func (c *call) setCORS() {
	for _, h := range c.cors {
		c.set(h.Name, h.Value)
	}
}

// preflight answers the question that browsers ask before a request of another
// origin. It is the one thing that nobody signs: it reads the CORS rules of the
// bucket and nothing else, and says the same for a bucket that does not exist.
func (c *call) preflight() error {
	if err := c.parseTarget(); err != nil {
		return err
	}
	origin, method := c.header("Origin"), c.header("Access-Control-Request-Method")
	requested, err := s3.RequestedHeaders(c.r.Header)
	switch {
	case origin == "":
		return s3.E(s3.BadRequest, "Insufficient information. Origin request header needed.")
	case !s3.IsCORSMethod(method):
		return s3.E(s3.BadRequest, "Invalid Access-Control-Request-Method: "+strings.ToValidUTF8(method, "?"))
	case err != nil:
		return err
	case c.bucket == "":
		return s3.E(s3.AccessForbidden, "")
	}
	rules, err := c.corsRules()
	if err != nil && s3.Classify(err).Code != s3.NoSuchBucket {
		return err
	}
	if len(rules) == 0 {
		return s3.E(s3.AccessForbidden, "CORSResponse: CORS is not enabled for this bucket.")
	}
	headers, ok := s3.MatchCORS(rules, origin, method, requested)
	if !ok {
		return s3.E(s3.AccessForbidden, "")
	}
	c.cors = slices.Clip(headers)
	c.setCORS()
	return c.empty(http.StatusOK)
}
