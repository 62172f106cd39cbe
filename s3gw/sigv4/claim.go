package sigv4

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"ashlar/s3gw/s3"
)

// claim is what a request says about its signature, parsed and not yet believed.
type claim struct {
	accessKey, date, region string
	service                 string
	signedHeaders           string
	signature               string
	stamp                   string // ISO 8601 basic, as signed
	time                    time.Time
	presigned               bool
	expires                 time.Duration
	until                   time.Time // the end of its life, if presigned
	payload                 string    // the x-amz-content-sha256 that was signed

	// Of Signature Version 2, which has no region, no service and no list of headers.
	version2 bool
	timeText string // what is signed as the time
	headers  []header2
}

func (c *claim) scope() string {
	return c.date + "/" + c.region + "/" + c.service + "/" + scopeTail
}

// claimOf finds the one place where the request names its credentials.
func (v *Verifier) claimOf(r *http.Request, q s3.Query) (*claim, error) {
	headers := r.Header["Authorization"]
	query := q.Has("X-Amz-Algorithm") || q.Has("X-Amz-Signature") || q.Has("X-Amz-Credential")
	v2 := q.Has(paramAccessKey) && q.Has(paramSignature)
	if v.Version2 != nil { // what is presigned by half is told what it lacks
		v2 = q.Has(paramAccessKey) || q.Has(paramSignature)
	}
	switch {
	case len(headers) > 1, len(headers) == 1 && headers[0] != "" && (query || v2), query && v2:
		return nil, s3.E(s3.InvalidArgument, "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, "+
			"Signature query string parameter or the Authorization header should be specified")
	case query:
		return v.claimOfQuery(r, q)
	case v2:
		return v.claimOfQuery2(q)
	case len(headers) == 0 || headers[0] == "":
		return nil, s3.E(s3.AccessDenied, "")
	}
	return v.claimOfHeader(r, headers[0])
}

func unsupported() error {
	return s3.E(s3.InvalidRequest, "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.")
}

func (v *Verifier) claimOfHeader(r *http.Request, header string) (*claim, error) {
	if credential, ok := strings.CutPrefix(header, "AWS "); ok {
		return v.claimOfHeader2(r, credential)
	}
	scheme, _, spaced := strings.Cut(header, " ")
	if !strings.HasPrefix(scheme, algorithm) {
		why := "Unsupported Authorization Type"
		if !spaced {
			why = "Authorization header is invalid -- one and only one ' ' (space) required."
		}
		return nil, s3.E(s3.InvalidArgument, why).With("ArgumentName", "Authorization").
			With("ArgumentValue", strings.ToValidUTF8(header, "?"))
	}
	c, err := parseAuthorization(header, serviceS3)
	if err != nil {
		return nil, err
	}
	if why := v.wrongRegion(c.region); why != "" {
		return nil, v.malformedRegion(why)
	}
	if err := c.readTime(r.Header); err != nil {
		return nil, err
	}
	values := r.Header["X-Amz-Content-Sha256"]
	if len(values) != 1 || values[0] == "" {
		return nil, s3.E(s3.InvalidRequest, "Missing required header for this request: x-amz-content-sha256")
	}
	c.payload = values[0]
	return c, nil
}

func (v *Verifier) malformedRegion(why string) error {
	return s3.E(s3.AuthorizationHeaderMalformed, "The authorization header is malformed; "+why).With("Region", v.Region)
}

// readTime takes the time of the request from its headers.
func (c *claim) readTime(h http.Header) (err error) {
	if c.time, c.stamp, err = requestTime(h); err != nil {
		return err
	}
	if c.stamp[:len(dateLayout)] != c.date {
		return s3.E(s3.AuthorizationHeaderMalformed, "The authorization header is malformed; invalid credential date. "+
			"Date is not the same as X-Amz-Date.")
	}
	return nil
}

// parseAuthorization reads the value of an Authorization header for one of the services.
func parseAuthorization(header string, services ...string) (*claim, error) {
	bad := func(why string) (*claim, error) {
		return nil, s3.E(s3.AuthorizationHeaderMalformed, "The authorization header is malformed; "+why)
	}
	rest, ok := strings.CutPrefix(header, algorithm)
	if !ok || rest == "" || rest[0] != ' ' && rest[0] != '\t' {
		return bad("it must begin with " + algorithm + ".")
	}
	c := &claim{}
	credential := ""
	fields := strings.Split(rest, ",")
	if len(fields) != 3 {
		return bad("the authorization header requires three components: Credential, SignedHeaders, and Signature.")
	}
	for _, field := range fields {
		name, value, ok := strings.Cut(strings.TrimSpace(field), "=")
		var into *string
		switch name {
		case "Credential":
			into = &credential
		case "SignedHeaders":
			into = &c.signedHeaders
		case "Signature":
			into = &c.signature
		}
		if !ok || value == "" {
			return bad("the authorization component " + quoted(strings.TrimSpace(field)) + " is malformed.")
		}
		if into != nil { // what is missing is named below
			*into = value
		}
	}
	for _, p := range []struct{ name, value string }{
		{"Credential", credential}, {"SignedHeaders", c.signedHeaders}, {"Signature", c.signature},
	} {
		if p.value == "" {
			return bad("missing " + p.name + ".")
		}
	}
	if why := c.setCredential(credential, services...); why != "" {
		return bad(why)
	}
	if !validSignature(c.signature) {
		return bad("the Signature must be 64 hexadecimal digits.")
	}
	return c, nil
}

// setCredential splits AKID/date/region/service/aws4_request; it returns what is
// wrong with it, or nothing. The access key itself may hold slashes.
func (c *claim) setCredential(s string, services ...string) string {
	const malformed = `the Credential is mal-formed; expecting "<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request".`
	var tail [4]string
	for i := 3; i >= 0; i-- {
		at := strings.LastIndexByte(s, '/')
		if at < 0 {
			return malformed
		}
		s, tail[i] = s[:at], s[at+1:]
	}
	_, err := time.Parse(dateLayout, tail[0])
	switch {
	case s == "":
		return malformed
	case !slices.Contains(services, tail[2]):
		return "incorrect service " + quoted(tail[2]) + ". This endpoint belongs to " + quoted(services[0]) + "."
	case tail[3] != scopeTail:
		return "incorrect terminal " + quoted(tail[3]) + `. This endpoint uses "aws4_request".`
	case err != nil || len(tail[0]) != len(dateLayout):
		return "incorrect date format " + quoted(tail[0]) + `. This date in the credential must be in the format "yyyyMMdd".`
	}
	c.accessKey, c.date, c.region, c.service = s, tail[0], tail[1], tail[2]
	return ""
}

func quoted(s string) string { return `"` + strings.ToValidUTF8(s, "?") + `"` }

func validSignature(s string) bool {
	if len(s) != 64 {
		return false
	}
	for i := 0; i < len(s); i++ {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// wrongRegion is what follows "…; " where the region of a scope is not taken, or nothing;
// old clients find the right one in these words, with these quotes.
func (v *Verifier) wrongRegion(region string) string {
	switch {
	case region == v.Region, v.AnyRegion && s3.IsRegion(region):
		return ""
	case v.AnyRegion:
		return "the region must be " + s3.RegionForm + "; '" + v.Region + "' is this endpoint's"
	}
	return "the region '" + strings.ToValidUTF8(region, "?") + "' is wrong; expecting '" + v.Region + "'"
}

func noDate() error {
	return s3.E(s3.AccessDenied, "AWS authentication requires a valid Date or x-amz-date header")
}

// requestTime reads x-amz-date or, failing that, Date.
func requestTime(h http.Header) (time.Time, string, error) {
	if values := h["X-Amz-Date"]; len(values) > 0 {
		t, err := time.Parse(stampLayout, values[0])
		if err != nil || len(values) > 1 {
			return time.Time{}, "", noDate()
		}
		return t, values[0], nil
	}
	t, stamp, ok := parseTime(h.Get("Date"))
	if !ok {
		return time.Time{}, "", noDate()
	}
	return t, stamp, nil
}

// parseTime reads a time in each form that clients write into a Date, and returns its stamp.
func parseTime(text string) (t time.Time, stamp string, ok bool) {
	t, err := time.Parse(stampLayout, text)
	if err != nil {
		t, err = http.ParseTime(text)
	}
	if err != nil { // botocore writes a numeric zone, as mail does.
		t, err = time.Parse(time.RFC1123Z, text)
	}
	return t, t.UTC().Format(stampLayout), err == nil
}

func (v *Verifier) claimOfQuery(r *http.Request, q s3.Query) (*claim, error) {
	bad := func(why string) (*claim, error) { return nil, s3.E(s3.AuthorizationQueryParametersError, why) }
	outOfBounds := func(why string) (*claim, error) {
		return nil, s3.E(s3.AuthorizationQueryParametersError, why).OnRGW(s3.AccessDenied)
	}
	var alg, credential, expires string
	c := &claim{presigned: true, payload: unsignedPayload}
	for _, p := range []struct {
		name string
		into *string
	}{
		{"X-Amz-Algorithm", &alg}, {"X-Amz-Credential", &credential}, {"X-Amz-Signature", &c.signature},
		{"X-Amz-Date", &c.stamp}, {"X-Amz-SignedHeaders", &c.signedHeaders}, {"X-Amz-Expires", &expires},
	} {
		for i := range q {
			if q[i].Name != p.name {
				continue
			}
			if *p.into != "" {
				return bad(p.name + " is given twice.")
			}
			*p.into = q[i].Value
		}
		if *p.into == "" {
			return bad("Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, " +
				"X-Amz-Signature, X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters.")
		}
	}
	const parsing = "Error parsing the X-Amz-Credential parameter; "
	if alg != algorithm {
		return bad(`X-Amz-Algorithm only supports "AWS4-HMAC-SHA256"`)
	}
	if why := c.setCredential(credential, serviceS3); why != "" {
		return bad(parsing + why)
	}
	if !validSignature(c.signature) {
		return nil, s3.E(s3.SignatureDoesNotMatch, "")
	}
	if why := v.wrongRegion(c.region); why != "" {
		return nil, s3.E(s3.AuthorizationQueryParametersError, parsing+why).With("Region", v.Region)
	}
	var err error
	if c.time, err = time.Parse(stampLayout, c.stamp); err != nil {
		return bad(`X-Amz-Date must be in the ISO8601 Long Format "yyyyMMdd'T'HHmmss'Z'"`)
	}
	if c.stamp[:len(dateLayout)] != c.date {
		return bad("Invalid credential date " + quoted(c.date) + ". This date is not the same as X-Amz-Date: " + quoted(c.stamp[:len(dateLayout)]) + ".")
	}
	seconds, err := strconv.Atoi(expires)
	switch {
	case err != nil:
		return bad("X-Amz-Expires should be a number")
	case seconds < 0:
		return outOfBounds("X-Amz-Expires must be non-negative")
	case seconds == 0:
		return outOfBounds("X-Amz-Expires must be positive")
	case seconds > expiresSecondsMax:
		return outOfBounds("X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires must be less than 604800 seconds")
	}
	c.expires = time.Duration(seconds) * time.Second
	c.until = c.time.Add(c.expires)
	if p, ok := q.Get("X-Amz-Content-Sha256"); ok {
		c.payload = p
	} else if h := r.Header.Get("X-Amz-Content-Sha256"); h != "" {
		c.payload = h
	}
	return c, nil
}
