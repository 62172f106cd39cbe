package s3

import (
	"html"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// websiteRulesMax is AWS's bound.
const websiteRulesMax = 50

// Website is how a bucket answers browsers. Either All is set, or Index is.
type Website struct {
	// All is where every request is sent.
	All *Redirect
	// Index is what is appended to "directories", Error the key of the document that
	// is answered for errors of the client, empty for none.
	Index, Error string
	Rules        []RoutingRule
}

// RoutingRule sends some requests elsewhere: those for keys that begin with Prefix
// and, if Status is not zero, fail with it.
type RoutingRule struct {
	Prefix string
	Status int
	To     Redirect

	conditional, prefixed bool // as it was written
}

// Redirect says where a request is sent. What is empty stays as it is.
type Redirect struct {
	Protocol, Host string
	// Key takes the place of the key; Prefix that of the rule's prefix. At most one
	// of the two is set.
	Key, Prefix *string
	// Status is that of the answer, 0 for 301.
	Status int
}

// Match returns the first rule for a key that was asked for; status is that of the
// error, or 0 before the key is looked for. It returns nil if there is none.
func (w *Website) Match(key string, status int) *RoutingRule {
	for i := range w.Rules {
		if r := &w.Rules[i]; r.Status == status && strings.HasPrefix(key, r.Prefix) {
			return r
		}
	}
	return nil
}

// Target returns the key that a request for key is sent to.
func (r *RoutingRule) Target(key string) string {
	switch {
	case r.To.Key != nil:
		return *r.To.Key
	case r.To.Prefix != nil:
		return *r.To.Prefix + strings.TrimPrefix(key, r.Prefix)
	}
	return key
}

// ParseWebsite reads a WebsiteConfiguration.
func ParseWebsite(doc []byte) (*Website, error) {
	root, err := parseXML(doc)
	if err != nil {
		return nil, err
	}
	if root.name != "WebsiteConfiguration" {
		return nil, malformed("root " + root.name)
	}
	parts, err := root.fields("IndexDocument", "ErrorDocument", "RedirectAllRequestsTo", "RoutingRules")
	if err != nil {
		return nil, err
	}
	w := &Website{}
	if all := parts["RedirectAllRequestsTo"]; all != nil {
		if len(parts) > 1 {
			return nil, websiteArgument("RedirectAllRequestsTo", "not null", "RedirectAllRequestsTo cannot be provided in conjunction with other Routing Rules.")
		}
		w.All, err = parseRedirectAll(all)
		return w, err
	}
	index := parts["IndexDocument"]
	if index == nil {
		return nil, websiteArgument("IndexDocument", "null", "A value for IndexDocument Suffix must be provided if RedirectAllRequestsTo is empty")
	}
	if w.Index, err = onlyText(index, "Suffix"); err != nil {
		return nil, err
	}
	if _, bad := ParseKey(w.Index); bad != nil || strings.Contains(w.Index, "/") {
		return nil, websiteArgument("IndexDocument", printable(w.Index), "The IndexDocument Suffix is not well formed")
	}
	if e := parts["ErrorDocument"]; e != nil {
		if w.Error, err = onlyText(e, "Key"); err != nil {
			return nil, err
		}
		if _, bad := ParseKey(w.Error); bad != nil {
			return nil, websiteArgument("ErrorDocument", printable(w.Error), "The ErrorDocument Key is not well formed")
		}
	}
	if rules := parts["RoutingRules"]; rules != nil {
		w.Rules, err = parseRoutingRules(rules)
	}
	return w, err
}

func websiteArgument(name, value, message string) error {
	return E(InvalidArgument, message).With("ArgumentName", name).With("ArgumentValue", value)
}

// fields returns the children of an element by name: each of the given names at
// most once, and nothing else.
func (n *node) fields(names ...string) (map[string]*node, error) {
	out := map[string]*node{}
	for _, c := range n.children {
		if !slices.Contains(names, c.name) || out[c.name] != nil {
			return nil, malformed("element " + c.name)
		}
		out[c.name] = c
	}
	return out, nil
}

// texts returns the texts of the children of an element, likewise.
func (n *node) texts(names ...string) (map[string]string, error) {
	parts, err := n.fields(names...)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for name, c := range parts {
		if out[name], err = c.value(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// onlyText returns the text of the one child that an element must have.
func onlyText(n *node, name string) (string, error) {
	texts, err := n.texts(name)
	if err == nil && len(texts) == 0 {
		err = malformed("no " + name)
	}
	return texts[name], err
}

func parseRedirectAll(n *node) (*Redirect, error) {
	texts, err := n.texts("HostName", "Protocol")
	if err != nil {
		return nil, err
	}
	host, given := texts["HostName"]
	switch {
	case !given:
		return nil, malformed("no HostName")
	case host == "":
		return nil, E(InvalidRequest, `A host name must be provided to redirect all requests (e.g. "example.com").`)
	}
	r := &Redirect{Host: host, Protocol: texts["Protocol"]}
	return r, r.check()
}

func parseRoutingRules(n *node) (rules []RoutingRule, err error) {
	if len(n.children) > websiteRulesMax {
		return nil, E(InvalidRequest, strconv.Itoa(len(n.children))+" routing rules provided, the number of routing rules in a website configuration is limited to 50.")
	}
	for _, c := range n.children {
		if c.name != "RoutingRule" {
			return nil, malformed("element " + c.name)
		}
		r, err := parseRoutingRule(c)
		if err != nil {
			return nil, err
		}
		rules = append(rules, r)
	}
	if len(rules) == 0 {
		return nil, malformed("no RoutingRule")
	}
	return rules, nil
}

func parseRoutingRule(n *node) (r RoutingRule, err error) {
	parts, err := n.fields("Condition", "Redirect")
	if err != nil {
		return r, err
	}
	if c := parts["Condition"]; c != nil {
		texts, err := c.texts("KeyPrefixEquals", "HttpErrorCodeReturnedEquals")
		if err != nil {
			return r, err
		}
		if len(texts) == 0 {
			return r, E(InvalidRequest, "Condition cannot be empty. To redirect all requests without a condition, the condition element shouldn't be present.")
		}
		r.conditional = true
		r.Prefix, r.prefixed = texts["KeyPrefixEquals"]
		if code, given := texts["HttpErrorCodeReturnedEquals"]; given {
			status, ok := decimal(code)
			if !ok || status < 400 || status > 599 {
				return r, E(InvalidRequest, "The provided HTTP error code ("+printable(code)+") is not valid. Valid codes are 4XX or 5XX.")
			}
			r.Status = int(status)
		}
	}
	if parts["Redirect"] == nil {
		return r, malformed("no Redirect")
	}
	r.To, err = parseRedirect(parts["Redirect"])
	return r, err
}

func parseRedirect(n *node) (r Redirect, err error) {
	texts, err := n.texts("Protocol", "HostName", "ReplaceKeyPrefixWith", "ReplaceKeyWith", "HttpRedirectCode")
	if err != nil {
		return r, err
	}
	if len(texts) == 0 {
		return r, malformed("an empty Redirect")
	}
	r.Protocol, r.Host = texts["Protocol"], texts["HostName"]
	if _, given := texts["Protocol"]; given && r.Protocol == "" {
		r.Protocol = "none" // refused below
	}
	if v, given := texts["ReplaceKeyPrefixWith"]; given {
		r.Prefix = &v
	}
	if v, given := texts["ReplaceKeyWith"]; given {
		r.Key = &v
	}
	if r.Key != nil && r.Prefix != nil {
		return r, E(InvalidRequest, "You can only define ReplaceKeyPrefix or ReplaceKey but not both.")
	}
	if code, given := texts["HttpRedirectCode"]; given {
		status, ok := decimal(code)
		if !ok || status < 301 || status > 399 {
			return r, E(InvalidRequest, "The provided HTTP redirect code ("+printable(code)+") is not valid. Valid codes are 3XX except 300.")
		}
		r.Status = int(status)
	}
	return r, r.check()
}

// check judges what will stand in a header.
func (r *Redirect) check() error {
	if r.Protocol != "" && r.Protocol != "http" && r.Protocol != "https" {
		return E(InvalidRequest, "Invalid protocol, protocol can be http or https. If not defined the protocol will be selected automatically.")
	}
	if strings.ContainsFunc(r.Host, func(c rune) bool {
		return !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.ContainsRune("-._:[]", c))
	}) {
		return E(InvalidRequest, "The HostName is not a name or an address of a host.")
	}
	return nil
}

// CheckWebsite reads a WebsiteConfiguration and returns the document that is kept.
func CheckWebsite(doc []byte) ([]byte, error) {
	s, err := ParseWebsite(doc)
	if err != nil {
		return nil, err
	}
	var w Writer
	w.Begin("WebsiteConfiguration")
	if s.All != nil {
		w.Open("RedirectAllRequestsTo")
		w.Text("HostName", s.All.Host)
		if s.All.Protocol != "" {
			w.Raw("Protocol", s.All.Protocol)
		}
		w.Close("RedirectAllRequestsTo")
	} else {
		w.Open("IndexDocument")
		w.Text("Suffix", s.Index)
		w.Close("IndexDocument")
	}
	if s.Error != "" {
		w.Open("ErrorDocument")
		w.Text("Key", s.Error)
		w.Close("ErrorDocument")
	}
	if len(s.Rules) > 0 {
		w.Open("RoutingRules")
		for i := range s.Rules {
			s.Rules[i].write(&w)
		}
		w.Close("RoutingRules")
	}
	w.Close("WebsiteConfiguration")
	return w.B, nil
}

func (r *RoutingRule) write(w *Writer) {
	w.Open("RoutingRule")
	if r.conditional {
		w.Open("Condition")
		if r.prefixed {
			w.Text("KeyPrefixEquals", r.Prefix)
		}
		if r.Status != 0 {
			w.Int("HttpErrorCodeReturnedEquals", int64(r.Status))
		}
		w.Close("Condition")
	}
	w.Open("Redirect")
	if r.To.Protocol != "" {
		w.Raw("Protocol", r.To.Protocol)
	}
	if r.To.Host != "" {
		w.Text("HostName", r.To.Host)
	}
	if r.To.Prefix != nil {
		w.Text("ReplaceKeyPrefixWith", *r.To.Prefix)
	}
	if r.To.Key != nil {
		w.Text("ReplaceKeyWith", *r.To.Key)
	}
	if r.To.Status != 0 {
		w.Int("HttpRedirectCode", int64(r.To.Status))
	}
	w.Close("Redirect")
	w.Close("RoutingRule")
}

// AppendErrorPage writes the page that a browser is shown for e. While a custom
// error document was fetched, another error may have come up.
func AppendErrorPage(b []byte, e, custom *Error, requestID, hostID string) []byte {
	title := strconv.Itoa(e.Code.Status()) + " " + http.StatusText(e.Code.Status())
	page := []string{"<html>", "<head><title>" + title + "</title></head>", "<body>", "<h1>" + title + "</h1>", "<ul>"}
	item := func(name, value string) {
		page = append(page, "<li>"+html.EscapeString(name)+": "+html.EscapeString(printable(value))+"</li>")
	}
	list := func(e *Error) {
		item("Code", e.Code.String())
		item("Message", e.Text())
		for _, f := range e.Fields {
			item(f.Name, f.Value)
		}
	}
	list(e)
	item("RequestId", requestID)
	item("HostId", hostID)
	page = append(page, "</ul>")
	if custom != nil {
		page = append(page, "<h3>An Error Occurred While Attempting to Retrieve a Custom Error Document</h3>", "<ul>")
		list(custom)
		page = append(page, "</ul>")
	}
	page = append(page, "<hr/>", "</body>", "</html>", "")
	return append(b, strings.Join(page, "\n")...)
}
