package s3gw

import (
	"encoding/base64"
	"io"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"ashlar/s3gw/iam"
	"ashlar/s3gw/iam/directory"
	"ashlar/s3gw/s3"
	"ashlar/s3gw/sigv4"
)

// The query APIs of AWS, IAM and STS, at the gateway's own address: POST / with a form
// that names an action, signed for one of the services.
//
// Such a request goes a way of its own, with the same stations: the form is read and
// bounded, its signature covers it, the action is looked up in a table, and the sender's
// own policies must allow it on what it names before it runs. A parameter that the
// action does not know is refused: what was asked for must not be done by half.

const (
	// queryBytesMax bounds a form: a document of 10 KB, escaped, and its spaces.
	queryBytesMax = 128 << 10
	iamNamespace  = "https://iam.amazonaws.com/doc/2010-05-08/"
	stsNamespace  = "https://sts.amazonaws.com/doc/2011-06-15/"
	iamVersion    = "2010-05-08"
	stsVersion    = "2011-06-15"
)

// action is one line of the table of IAM's and STS's operations.
type action struct {
	name string
	sts  bool
	// params are the parameters that it takes; ! marks those that must be there, # stands
	// for the numbers in lists.
	params string
	// anonymous says that it needs no credentials, free that it needs no right: it judges
	// by itself who may.
	anonymous, free bool
	// on names what it is about, for policies to judge.
	on    func(*call, *query) (subject, error)
	serve func(*call, *query, *s3.Writer) error
}

func (a *action) need() string {
	if a.sts {
		return "sts:" + a.name
	}
	return "iam:" + a.name
}

// subject is the resource of an action and condition keys that go with it.
type subject struct {
	arn    string
	values map[string][]string
}

// query is a form on its way.
type query struct {
	action *action
	values map[string]string
	// account is the sender's; nothing is ever done in another one.
	account *iam.Account
}

func (q *query) get(name string) string { return q.values[name] }

// or returns a parameter, or def if it is not there.
func (q *query) or(name, def string) string {
	if v, ok := q.values[name]; ok {
		return v
	}
	return def
}

// list returns the values of a list, whose parameters are prefix.1 and so on, with suffix.
func (q *query) list(prefix, suffix string) (list []string) {
	for i := 1; ; i++ {
		v, ok := q.values[prefix+strconv.Itoa(i)+suffix]
		if !ok {
			return list
		}
		list = append(list, v)
	}
}

// number reads a parameter within bounds.
func (q *query) number(name string, def, low, high int) (int, error) {
	text, ok := q.values[name]
	if !ok {
		return def, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < low || n > high {
		return 0, s3.E(s3.ValidationError, "Value '"+strings.ToValidUTF8(text, "?")+"' at '"+name+"' failed to satisfy constraint: want "+
			strconv.Itoa(low)+" to "+strconv.Itoa(high)+".")
	}
	return n, nil
}

// isQuery reports whether a request is one to IAM or STS: the form is what tells.
func (c *call) isQuery() bool {
	if c.s.directory == nil || c.r.Method != http.MethodPost || c.r.URL.EscapedPath() != "/" || len(c.query) > 0 {
		return false
	}
	if _, virtual := c.bucketOfHost(); virtual {
		return false
	}
	kind, _, err := mime.ParseMediaType(c.r.Header.Get("Content-Type"))
	return err == nil && kind == "application/x-www-form-urlencoded"
}

// runQuery is run for the query APIs. No step may be left out or moved.
func (c *call) runQuery() error {
	c.api = &query{}
	form, err := c.readQuery()
	if err != nil {
		return err
	}
	if sigv4.Anonymous(c.r, nil) {
		c.auth = &sigv4.Auth{}
	} else if c.auth, err = c.s.verifier.VerifyQuery(c.r, form); err != nil {
		return err
	}
	if err = c.identifySender(); err != nil {
		return err
	}
	if err = c.admitUser(); err != nil {
		return err
	}
	q := c.api
	if err = q.parse(form); err != nil {
		return err
	}
	q.account = c.who.Account
	c.route = &route{op: q.action.name}
	if err = c.authorizeQuery(q); err != nil {
		return err
	}
	c.admit()
	var w s3.Writer
	space := iamNamespace
	if q.action.sts {
		space = stsNamespace
	}
	w.BeginIn(q.action.name+"Response", space)
	start := len(w.B)
	w.Open(q.action.name + "Result")
	inner := len(w.B)
	if err = q.action.serve(c, q, &w); err != nil {
		return err
	}
	if len(w.B) == inner { // an action without a result has no element for it
		w.B = w.B[:start]
	} else {
		w.Close(q.action.name + "Result")
	}
	w.Open("ResponseMetadata")
	w.Raw("RequestId", c.id)
	w.Close("ResponseMetadata")
	w.Close(q.action.name + "Response")
	c.sendDocument(http.StatusOK, "text/xml", w.B)
	return nil
}

func (c *call) readQuery() ([]byte, error) {
	if c.r.ContentLength > queryBytesMax {
		return nil, s3.E(s3.EntityTooLarge, "")
	}
	form, err := io.ReadAll(io.LimitReader(newPacer(c.w, c.r.Body, &c.s.limits, &c.received, c.extendWrite), queryBytesMax+1))
	switch {
	case err != nil:
		return nil, incomplete(err)
	case len(form) > queryBytesMax:
		return nil, s3.E(s3.EntityTooLarge, "")
	}
	c.formRead = true
	return form, nil
}

var memberNumber = regexp.MustCompile(`\.[1-9][0-9]{0,2}(\.|$)`)

// parse reads the form and finds its action; every parameter must be one that it takes.
func (q *query) parse(form []byte) error {
	parsed, err := url.ParseQuery(string(form))
	if err != nil {
		return s3.E(s3.ValidationError, "The form cannot be read.")
	}
	q.values = map[string]string{}
	for name, values := range parsed {
		if len(values) != 1 {
			return s3.E(s3.ValidationError, "The parameter "+strings.ToValidUTF8(name, "?")+" is there more than once.")
		}
		q.values[name] = values[0]
	}
	name, version := q.values["Action"], q.values["Version"]
	a := actions[name]
	if a == nil || version != "" && version != map[bool]string{false: iamVersion, true: stsVersion}[a.sts] {
		return s3.E(s3.InvalidAction, "Could not find operation "+strings.ToValidUTF8(name, "?")+" for version "+strings.ToValidUTF8(version, "?"))
	}
	q.action = a
	delete(q.values, "Action")
	delete(q.values, "Version")
	var known []string
	for _, p := range strings.Fields(a.params) {
		p, must := strings.CutSuffix(p, "!")
		known = append(known, p)
		if must && q.values[p] == "" {
			return s3.E(s3.ValidationError, "Value null at '"+p+"' failed to satisfy constraint: Member must not be null")
		}
	}
	for name := range q.values {
		if !slices.Contains(known, memberNumber.ReplaceAllString(name, ".#$1")) {
			return s3.E(s3.ValidationError, "The parameter "+strings.ToValidUTF8(name, "?")+" of "+a.name+" is not supported.")
		}
	}
	return nil
}

// authorizeQuery decides whether an action may run.
func (c *call) authorizeQuery(q *query) error {
	a := q.action
	service := map[bool]string{false: "iam", true: "sts"}[a.sts]
	switch {
	case c.who.Kind == iam.Anonymous && a.anonymous:
		return nil
	case c.who.Kind == iam.Anonymous:
		return s3.E(s3.MissingAuthenticationToken, "")
	case c.auth.Service != service:
		return s3.E(s3.SignatureDoesNotMatch, "Credential should be scoped to correct service: '"+service+"'.")
	case c.who.Plain && a.name != "GetCallerIdentity" && a.name != "AssumeRole":
		return s3.E(s3.AccessDenied, "Credentials of GetSessionToken cannot be used for "+a.need()+".")
	case a.free:
		return nil
	}
	on, err := a.on(c, q)
	if err != nil {
		return err
	}
	return c.demandOn(a.need(), on)
}

// demandOn returns AccessDenied unless the sender's own policies allow an action.
func (c *call) demandOn(need string, on subject) error {
	ok, err := c.judge(&right{action: need, arn: on.arn, values: on.values})
	switch {
	case err != nil:
		return err
	case !ok:
		return notAuthorized(c.who, need, on.arn)
	}
	return nil
}

func notAuthorized(who *iam.Identity, need, arn string) error {
	return s3.E(s3.AccessDenied, "User: "+who.ARN+" is not authorized to perform: "+need+" on resource: "+arn)
}

// queryCodes are the codes that the query APIs have for what the verifier and the store say.
var queryCodes = map[s3.Code]s3.Code{
	s3.InvalidAccessKeyID: s3.InvalidClientTokenID, s3.InvalidToken: s3.InvalidClientTokenID, s3.AuthorizationHeaderMalformed: s3.SignatureDoesNotMatch,
	s3.XAmzContentSHA256Mismatch: s3.SignatureDoesNotMatch, s3.SlowDown: s3.Throttling, s3.OperationAborted: s3.Throttling,
	s3.InvalidRequest: s3.ValidationError, s3.InvalidArgument: s3.ValidationError,
}

// queryError is the answer of the query APIs to an error.
func queryError(e *s3.Error) *s3.Error {
	code, other := queryCodes[e.Code]
	if !other {
		return e
	}
	out := *e
	out.Code = code
	if code == s3.InvalidClientTokenID || code == s3.Throttling {
		out.Message = ""
	}
	return &out
}

func (c *call) sendQueryError(e *s3.Error) {
	var w s3.Writer
	space, fault := iamNamespace, "Sender"
	if a := c.api.action; a != nil && a.sts {
		space = stsNamespace
	}
	if e.Code.Status() >= http.StatusInternalServerError {
		fault = "Receiver"
	}
	w.BeginIn("ErrorResponse", space)
	w.Open("Error")
	w.Raw("Type", fault)
	w.Raw("Code", e.Code.String())
	w.Text("Message", e.Text())
	w.Close("Error")
	w.Raw("RequestId", c.id)
	w.Close("ErrorResponse")
	status := e.Code.Status()
	if e.Code == s3.ExpiredToken {
		status = http.StatusForbidden // S3 has 400 for it
	}
	c.sendDocument(status, "text/xml", w.B)
}

// page are the bounds of a list: where it begins and how long it is.
func (q *query) page() (marker string, limit int, err error) {
	if limit, err = q.number("MaxItems", 100, 1, directory.ListMax); err != nil {
		return "", 0, err
	}
	if text := q.get("Marker"); text != "" {
		raw, err := base64.RawURLEncoding.DecodeString(text)
		if err != nil {
			return "", 0, s3.E(s3.ValidationError, "Invalid Marker.")
		}
		marker = string(raw)
	}
	return marker, limit, nil
}

// truncated writes whether a list goes on, and where.
func truncated(w *s3.Writer, next string) {
	w.Bool("IsTruncated", next != "")
	if next != "" {
		w.Raw("Marker", base64.RawURLEncoding.EncodeToString([]byte(next)))
	}
}

// slice cuts a page out of a list that was read whole.
func slice[T any](q *query, list []T, name func(T) string) ([]T, string, error) {
	marker, limit, err := q.page()
	if err != nil {
		return nil, "", err
	}
	if marker != "" {
		for len(list) > 0 && name(list[0]) <= marker {
			list = list[1:]
		}
	}
	if len(list) <= limit {
		return list, "", nil
	}
	return list[:limit], name(list[limit-1]), nil
}

func queryTime(ns int64) string { return time.Unix(0, ns).UTC().Format("2006-01-02T15:04:05Z") }
