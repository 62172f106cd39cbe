package s3

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// Bounds of a CORS configuration.
const (
	corsRulesMax = 100
	corsIDMax    = 255
)

// CORSRule says which pages of other origins may do what with a bucket.
type CORSRule struct {
	ID                                string
	Origins, Methods, Headers, Expose []string
	// MaxAgeSeconds is how long a browser may remember the answer; nil if not set. Below
	// zero, which S3 takes too, it may not.
	MaxAgeSeconds *int32
}

var corsMethods = []string{"GET", "PUT", "POST", "DELETE", "HEAD"}

// IsCORSMethod reports whether a rule may allow the method.
func IsCORSMethod(method string) bool { return slices.Contains(corsMethods, method) }

// ParseCORS reads a CORSConfiguration.
func ParseCORS(doc []byte) ([]CORSRule, error) {
	root, err := parseXML(doc)
	if err != nil {
		return nil, err
	}
	if root.name != "CORSConfiguration" || len(root.children) == 0 || len(root.children) > corsRulesMax {
		return nil, malformed("want a CORSConfiguration of 1 to 100 rules")
	}
	var rules []CORSRule
	for _, c := range root.children {
		if c.name != "CORSRule" {
			return nil, malformed("element " + c.name)
		}
		rule, err := parseCORSRule(c)
		if err != nil {
			return nil, err
		}
		rules = append(rules, rule)
	}
	return rules, nil
}

func parseCORSRule(n *node) (CORSRule, error) {
	var r CORSRule
	for _, c := range n.children {
		v, err := c.value()
		if err != nil {
			return r, err
		}
		if !headerText(v) {
			return r, E(InvalidRequest, "A CORS rule holds a character that no header can hold.")
		}
		switch c.name {
		case "ID":
			r.ID = v
		case "AllowedOrigin":
			r.Origins = append(r.Origins, v)
		case "AllowedMethod":
			r.Methods = append(r.Methods, v)
		case "AllowedHeader":
			r.Headers = append(r.Headers, v)
		case "ExposeHeader":
			r.Expose = append(r.Expose, v)
		case "MaxAgeSeconds":
			age, err := strconv.ParseInt(v, 10, 32)
			if err != nil || r.MaxAgeSeconds != nil {
				return r, malformed("MaxAgeSeconds")
			}
			seconds := int32(age)
			r.MaxAgeSeconds = &seconds
		default:
			return r, malformed("element " + c.name)
		}
	}
	return r, r.check()
}

// headerText reports whether s can stand in a header.
func headerText(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}

// headerName reports whether s has no character that the name of a header cannot have.
func headerName(s string) bool {
	for i := 0; i < len(s); i++ {
		if !unreserved[s[i]] && !strings.ContainsRune("!#$%&'*+^`|", rune(s[i])) {
			return false
		}
	}
	return true
}

func (r *CORSRule) check() error {
	if len(r.Origins) == 0 || len(r.Methods) == 0 || len(r.ID) > corsIDMax {
		return malformed("a rule needs AllowedOrigin and AllowedMethod")
	}
	for _, m := range r.Methods {
		if !IsCORSMethod(m) {
			return E(InvalidRequest, "Found unsupported HTTP method in CORS config. Unsupported method is "+m)
		}
	}
	for _, o := range r.Origins {
		if strings.Count(o, "*") > 1 {
			return E(InvalidRequest, "AllowedOrigin \""+o+"\" can not have more than one wildcard.")
		}
	}
	for _, l := range []struct {
		element string
		names   []string
	}{{"AllowedHeader", r.Headers}, {"ExposeHeader", r.Expose}} {
		for _, h := range l.names {
			if !headerName(strings.ReplaceAll(h, "*", "")) {
				return E(InvalidRequest, l.element+" \""+h+"\" contains invalid character.")
			}
		}
	}
	for _, h := range r.Headers {
		if strings.Count(h, "*") > 1 {
			return E(InvalidRequest, "AllowedHeader \""+h+"\" can not have more than one wildcard.")
		}
	}
	for _, h := range r.Expose {
		if strings.Contains(h, "*") {
			return E(InvalidRequest, "ExposeHeader \""+h+"\" contains wildcard. We currently do not support wildcard for ExposeHeader.")
		}
	}
	return nil
}

// CheckCORS reads a CORSConfiguration and returns the document that is kept.
func CheckCORS(doc []byte) ([]byte, error) {
	rules, err := ParseCORS(doc)
	if err != nil {
		return nil, err
	}
	var w Writer
	w.Begin("CORSConfiguration")
	for i := range rules {
		rules[i].write(&w)
	}
	w.Close("CORSConfiguration")
	return w.B, nil
}

func (r *CORSRule) write(w *Writer) {
	w.Open("CORSRule")
	if r.ID != "" {
		w.Text("ID", r.ID)
	}
	for _, l := range []struct {
		name   string
		values []string
	}{{"AllowedMethod", r.Methods}, {"AllowedOrigin", r.Origins}, {"AllowedHeader", r.Headers}, {"ExposeHeader", r.Expose}} {
		for _, v := range l.values {
			w.Text(l.name, v)
		}
	}
	if r.MaxAgeSeconds != nil {
		w.Int("MaxAgeSeconds", int64(*r.MaxAgeSeconds))
	}
	w.Close("CORSRule")
}

// wildcard matches text against a pattern with at most one "*".
func wildcard(pattern, text string) bool {
	before, after, star := strings.Cut(pattern, "*")
	if !star {
		return pattern == text
	}
	return len(text) >= len(before)+len(after) && strings.HasPrefix(text, before) && strings.HasSuffix(text, after)
}

func anyWildcard(patterns []string, text string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return wildcard(p, text) })
}

// MatchCORS returns the answer's headers by the first rule that lets a page of
// origin use the method with these request headers; ok is false if none does.
// As on S3, an origin that a rule lists may send credentials; the browser's (cookies)
// mean nothing here.
func MatchCORS(rules []CORSRule, origin, method string, requested []string) (headers []Field, ok bool) {
	for i := range rules {
		r := &rules[i]
		if !anyWildcard(r.Origins, origin) || !slices.Contains(r.Methods, method) {
			continue
		}
		if slices.ContainsFunc(requested, func(h string) bool { return !r.allowsHeader(h) }) {
			continue
		}
		return r.headers(origin, requested), true
	}
	return nil, false
}

func (r *CORSRule) allowsHeader(name string) bool {
	return slices.ContainsFunc(r.Headers, func(p string) bool { return wildcard(strings.ToLower(p), strings.ToLower(name)) })
}

func (r *CORSRule) headers(origin string, requested []string) []Field {
	allowed := origin
	if slices.Contains(r.Origins, "*") {
		allowed = "*"
	}
	list := []Field{
		{"Access-Control-Allow-Origin", allowed}, {"Access-Control-Allow-Methods", strings.Join(r.Methods, ", ")},
		{"Vary", "Origin, Access-Control-Request-Headers, Access-Control-Request-Method"},
	}
	if allowed != "*" {
		list = append(list, Field{"Access-Control-Allow-Credentials", "true"})
	}
	if len(requested) > 0 {
		list = append(list, Field{"Access-Control-Allow-Headers", strings.ToLower(strings.Join(requested, ", "))})
	}
	if len(r.Expose) > 0 {
		list = append(list, Field{"Access-Control-Expose-Headers", strings.Join(r.Expose, ", ")})
	}
	if r.MaxAgeSeconds != nil {
		list = append(list, Field{"Access-Control-Max-Age", strconv.Itoa(int(*r.MaxAgeSeconds))})
	}
	return list
}

// RequestedHeaders reads Access-Control-Request-Headers. Names that no header
// has are refused: they would be sent back.
func RequestedHeaders(h http.Header) (names []string, err error) {
	for _, line := range h["Access-Control-Request-Headers"] {
		for _, name := range strings.Split(line, ",") {
			name = strings.TrimSpace(name)
			if name == "" {
				continue
			}
			if !headerName(name) {
				return nil, E(BadRequest, "Access-Control-Request-Headers \""+printable(name)+"\" contains invalid character.")
			}
			names = append(names, name)
		}
	}
	return names, nil
}
