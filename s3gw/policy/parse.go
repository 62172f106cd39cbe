package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Bounds of a document.
const (
	// BucketBytesMax is AWS's bound of a bucket policy.
	BucketBytesMax = 20 << 10
	// IdentityBytesMax bounds the others, without their spaces: AWS's largest bound, that
	// of a role's own policies.
	IdentityBytesMax = 10240
	// spacedBytesMax bounds a document with its spaces.
	spacedBytesMax = 128 << 10
	depthMax       = 16
)

// Kind says what a document is for, and so what must and must not stand in it.
type Kind uint8

const (
	// Bucket policies name principals, and resources of their bucket.
	Bucket Kind = iota
	// Identity policies belong to their principal and name resources.
	Identity
	// Trust policies belong to a role and name principals.
	Trust
)

// Clients compare these sentences: they are worded as S3 words them.
var (
	errNoObject         = errors.New("Policies must be valid JSON and the first byte must be '{'")
	errInvalidJSON      = errors.New("This policy contains invalid Json")
	errInvalidPrincipal = errors.New("Invalid principal in policy")
	errInvalidAction    = errors.New("Policy has invalid action")
	errInvalidResource  = errors.New("Policy has invalid resource")
)

// ErrTooLarge says that a document is longer than its bound.
var ErrTooLarge = errors.New("the policy is larger than allowed")

// Solid counts the bytes of a document that are not spaces: those that IAM counts.
func Solid(doc []byte) (n int) {
	for _, c := range doc {
		if c != ' ' && c != '\t' && c != '\n' && c != '\r' {
			n++
		}
	}
	return n
}

// Parse reads a document. bucket is the name of the bucket that a Bucket policy
// is for. The error says what is wrong in words for the one who wrote it.
func Parse(doc []byte, kind Kind, bucket string) (*Policy, error) {
	size, bound := len(doc), BucketBytesMax
	if kind != Bucket {
		size, bound = Solid(doc), IdentityBytesMax
	}
	if size > bound || len(doc) > spacedBytesMax {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, size, bound)
	}
	root, err := parseJSON(doc)
	if err != nil {
		return nil, err
	}
	members, ok := root.(object)
	if !ok {
		return nil, errNoObject
	}
	b := builder{kind: kind, bucket: bucket}
	return b.policy(members)
}

// object is a JSON object in the order in which it was written.
type object []member

type member struct {
	name  string
	value any // string, json.Number, bool, nil, []any or object
}

// parseJSON reads one value and refuses names that are there twice: two readers
// would take different ones.
func parseJSON(doc []byte) (any, error) {
	if !utf8.Valid(doc) {
		return nil, errors.New("policies must be UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(doc))
	d.UseNumber()
	v, err := parseValue(d, 0)
	ended := false
	if err == nil {
		_, err = d.Token()
		ended = err == io.EOF
	}
	if !ended {
		if !bytes.HasPrefix(bytes.TrimSpace(doc), []byte("{")) {
			return nil, errNoObject
		}
		return nil, errInvalidJSON
	}
	return v, nil
}

func parseValue(d *json.Decoder, depth int) (any, error) {
	if depth > depthMax {
		return nil, errors.New("nested too deep")
	}
	tok, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch tok {
	case json.Delim('['):
		list := []any{}
		for d.More() {
			v, err := parseValue(d, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err = d.Token()
		return list, err
	case json.Delim('{'):
		var o object
		seen := map[string]bool{}
		for d.More() {
			name, err := d.Token()
			if err != nil {
				return nil, err
			}
			v, err := parseValue(d, depth+1)
			if err != nil {
				return nil, err
			}
			if seen[name.(string)] {
				return nil, fmt.Errorf("%q is there twice", name)
			}
			seen[name.(string)] = true
			o = append(o, member{name.(string), v})
		}
		_, err = d.Token()
		return o, err
	}
	return tok, nil
}

// builder makes a Policy.
type builder struct {
	kind      Kind
	bucket    string
	variables bool
}

func (b *builder) policy(members object) (*Policy, error) {
	p := &Policy{}
	var statements any
	for _, m := range members {
		text, isText := m.value.(string)
		switch m.name {
		case "Version":
			if text != "2012-10-17" && text != "2008-10-17" {
				return nil, errors.New("The policy must contain a valid version string")
			}
			b.variables = text == "2012-10-17"
		case "Id":
			if !isText {
				return nil, errors.New("Id must be text")
			}
		case "Statement":
			statements = m.value
		default:
			return nil, fmt.Errorf("unknown element %q of the policy", m.name)
		}
	}
	p.variables = b.variables
	list, ok := statements.([]any)
	if o, one := statements.(object); one {
		list, ok = []any{o}, true
	}
	if ok && len(list) == 0 {
		return nil, errors.New("Could not parse the policy: Statement is empty!")
	}
	if !ok {
		return nil, errors.New("Missing required field Statement")
	}
	sids := map[string]bool{}
	for _, v := range list {
		o, ok := v.(object)
		if !ok {
			return nil, errors.New("a statement must be an object")
		}
		s, sid, err := b.statement(o)
		if err != nil {
			return nil, err
		}
		if sid != "" && sids[sid] {
			return nil, fmt.Errorf("statement ids (Sid) must be unique: %q", sid)
		}
		sids[sid] = true
		p.statements = append(p.statements, *s)
	}
	return p, nil
}

func (b *builder) statement(o object) (*statement, string, error) {
	s := &statement{}
	sid, effect := "", ""
	var err error
	for _, m := range o {
		text, _ := m.value.(string)
		switch m.name {
		case "Sid":
			if _, ok := m.value.(string); !ok {
				return nil, "", errors.New("Sid must be text")
			}
			sid = text
		case "Effect":
			effect = text
		case "Principal", "NotPrincipal":
			if s.principals != nil {
				return nil, "", errors.New("a statement has Principal or NotPrincipal, not both")
			}
			s.notPrincipals = m.name[0] == 'N'
			s.principals, err = b.principals(m.value)
		case "Action", "NotAction":
			if s.actions != nil {
				return nil, "", errors.New("a statement has Action or NotAction, not both")
			}
			s.notActions = m.name[0] == 'N'
			s.actions, err = b.actions(m.value)
		case "Resource", "NotResource":
			if s.resources != nil {
				return nil, "", errors.New("a statement has Resource or NotResource, not both")
			}
			s.notResources = m.name[0] == 'N'
			s.resources, err = b.resources(m.value)
		case "Condition":
			s.conditions, err = b.conditions(m.value)
		default:
			err = fmt.Errorf("unknown element %q of a statement", m.name)
		}
		if err != nil {
			return nil, "", err
		}
	}
	switch s.deny = effect == "Deny"; {
	case effect != "Allow" && effect != "Deny":
		return nil, "", fmt.Errorf("Invalid effect: %s", effect)
	case s.actions == nil:
		return nil, "", errors.New("missing required field Action")
	case (s.principals == nil) != (b.kind == Identity):
		return nil, "", errors.New("missing required field Principal, or one where it cannot stand")
	case (s.resources == nil) != (b.kind == Trust):
		return nil, "", errors.New("missing required field Resource, or one where it cannot stand")
	case s.notPrincipals && b.kind == Trust:
		return nil, "", errors.New("NotPrincipal cannot stand in a trust policy")
	}
	return s, sid, nil
}

// texts reads a text or a list of texts, at least one.
func texts(v any, what string) ([]string, error) {
	list, ok := v.([]any)
	if s, one := v.(string); one {
		list, ok = []any{s}, true
	}
	if !ok || len(list) == 0 {
		return nil, fmt.Errorf("%s must be text or a list of texts", what)
	}
	out := make([]string, len(list))
	for i, v := range list {
		if out[i], ok = v.(string); !ok {
			return nil, fmt.Errorf("%s must be text or a list of texts", what)
		}
	}
	return out, nil
}

func (b *builder) principals(v any) (*principals, error) {
	p := &principals{accounts: map[string]bool{}, arns: map[string]bool{}}
	if v == "*" {
		p.everybody = true
		return p, nil
	}
	o, ok := v.(object)
	if !ok || len(o) == 0 {
		return nil, errInvalidPrincipal
	}
	for _, m := range o {
		names, err := texts(m.value, "Principal")
		if err != nil {
			return nil, errInvalidPrincipal
		}
		for _, name := range names {
			if !p.add(m.name, name, b.kind) {
				return nil, errInvalidPrincipal
			}
		}
	}
	return p, nil
}

// add takes one name of a kind of principals; it reports whether that is one.
func (p *principals) add(kind, name string, of Kind) bool {
	switch kind {
	case "AWS":
		return p.addAWS(name)
	case "CanonicalUser":
		p.accounts[name] = true
		return len(name) == canonicalDigits && strings.Trim(name, "0123456789abcdef") == ""
	case "Service":
		p.arns[name] = true
		host := strings.TrimSuffix(name, ".amazonaws.com")
		return host != name && host != "" && strings.Trim(host, "abcdefghijklmnopqrstuvwxyz0123456789.-") == ""
	case "Federated":
		p.arns[name] = true
		return of == Trust && name != "" && !strings.ContainsAny(name, "*?")
	}
	return false
}

const canonicalDigits = 64

func (p *principals) addAWS(name string) bool {
	if name == "*" {
		p.everybody = true
		return true
	}
	parts := strings.SplitN(name, ":", arnParts)
	if len(parts) == 1 {
		p.accounts[name] = true
		return validAccount(name)
	}
	if len(parts) != arnParts || parts[0] != "arn" || parts[1] != "aws" || parts[3] != "" || !validAccount(parts[4]) || strings.ContainsAny(name, "*?") {
		return false
	}
	kind, rest, named := strings.Cut(parts[5], "/")
	switch {
	case parts[2] == "iam" && parts[5] == "root":
		p.accounts[parts[4]] = true
		return true
	case !named || rest == "" || strings.HasSuffix(rest, "/"):
		return false
	case parts[2] == "iam" && (kind == "user" || kind == "role"), parts[2] == "sts" && (kind == "assumed-role" || kind == "federated-user"):
		p.arns[name] = true
		return true
	}
	return false
}

// validAccount judges an account id: AWS's have twelve digits, ours may also be words.
func validAccount(id string) bool {
	if id == "" || len(id) > 64 {
		return false
	}
	for _, c := range id {
		if c != '-' && c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return true
}

func (b *builder) actions(v any) ([]pattern, error) {
	names, err := texts(v, "Action")
	if err != nil {
		return nil, errInvalidAction
	}
	out := make([]pattern, len(names))
	for i, name := range names {
		service, action, ok := strings.Cut(name, ":")
		valid := name == "*" || ok && action != "" && service != "" && strings.Trim(lower(service), "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
		if strings.EqualFold(service, "s3") {
			valid = valid && knownAction(action)
		} else if b.kind == Bucket {
			valid = valid && name == "*"
		}
		if b.kind == Trust {
			valid = valid && (strings.EqualFold(service, "sts") || name == "*")
		}
		if !valid {
			return nil, errInvalidAction
		}
		out[i], _ = parsePattern(lower(name), true, false)
	}
	return out, nil
}

func (b *builder) resources(v any) ([]pattern, error) {
	names, err := texts(v, "Resource")
	if err != nil {
		return nil, errInvalidResource
	}
	out := make([]pattern, len(names))
	for i, name := range names {
		p, ok := parsePattern(name, true, b.variables)
		if !ok || !b.resource(name) {
			return nil, errInvalidResource
		}
		out[i] = p
	}
	return out, nil
}

const s3ARN = "arn:aws:s3:::"

// resource judges a resource: of a bucket policy it must lie in its bucket.
func (b *builder) resource(name string) bool {
	if name == "*" {
		return true
	}
	rest, isS3 := strings.CutPrefix(name, s3ARN)
	if b.kind != Bucket {
		return isS3 && rest != "" || strings.HasPrefix(name, "arn:") && strings.Count(name, ":") >= arnParts-1
	}
	bucket, _, _ := strings.Cut(rest, "/")
	p, ok := parsePattern(bucket, true, false)
	return isS3 && ok && p.match(b.bucket, nil)
}

func (b *builder) conditions(v any) ([]condition, error) {
	o, ok := v.(object)
	if !ok {
		return nil, errors.New("Condition must be an object")
	}
	var out []condition
	for _, m := range o {
		c, err := parseOperator(m.name)
		if err != nil {
			return nil, err
		}
		keys, ok := m.value.(object)
		if !ok || len(keys) == 0 {
			return nil, fmt.Errorf("the operator %q needs an object of keys", m.name)
		}
		seen := map[string]bool{}
		for _, k := range keys {
			one, err := b.condition(c, k)
			if err != nil {
				return nil, err
			}
			if seen[one.key] {
				return nil, fmt.Errorf("the key %q is there twice", k.name)
			}
			seen[one.key] = true
			out = append(out, one)
		}
	}
	return out, nil
}

// parseOperator reads the name of an operator with what may stand around it.
func parseOperator(text string) (c condition, err error) {
	name := text
	switch rest, set := strings.CutPrefix(name, "ForAllValues:"); {
	case set:
		name, c.quantifier = rest, forAll
	default:
		if rest, set = strings.CutPrefix(name, "ForAnyValue:"); set {
			name, c.quantifier = rest, forAny
		}
	}
	if rest, set := strings.CutSuffix(name, "IfExists"); set {
		name, c.ifExists = rest, true
	}
	c.op = operators[lower(name)]
	if c.op == nil || c.op.is == nil && name != text {
		return c, fmt.Errorf("invalid condition type %q", text)
	}
	return c, nil
}

func (b *builder) condition(c condition, k member) (condition, error) {
	c.key = lower(k.name)
	if !knownKey(k.name) && !(b.kind == Trust && knownClaim(k.name)) {
		return c, fmt.Errorf("policy has an invalid condition key %q", k.name)
	}
	list, ok := k.value.([]any)
	if !ok {
		list = []any{k.value}
	}
	if len(list) == 0 {
		return c, fmt.Errorf("the condition key %q has no value", k.name)
	}
	for _, v := range list {
		text, ok := v.(string)
		switch v := v.(type) {
		case json.Number:
			text, ok = v.String(), true
		case bool:
			text, ok = fmt.Sprint(v), true
		}
		var o operand
		if ok {
			o, ok = c.op.parse(text, b.variables)
		}
		if !ok {
			return c, fmt.Errorf("policy has an invalid value %v of the condition key %q for %s", v, k.name, c.op.name)
		}
		c.values = append(c.values, o)
	}
	return c, nil
}
