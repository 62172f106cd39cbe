package s3

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// PostPolicy is the policy of a POST form: until when it may be used, and what
// every field must be.
type PostPolicy struct {
	expires    time.Time
	conditions []postCondition
	// BytesMin and BytesMax bound the file; BytesMax is -1 without a bound.
	BytesMin, BytesMax int64
}

type postCondition struct {
	field  string // lower case, without $
	value  string
	prefix bool // starts-with instead of eq
}

// String prints a condition as a policy writes it.
func (c *postCondition) String() string {
	operator := "eq"
	if c.prefix {
		operator = "starts-with"
	}
	return fmt.Sprintf("[%q, %q, %q]", operator, "$"+printable(c.field), printable(c.value))
}

func badPolicy(why string) *Error {
	return &Error{Code: InvalidPolicyDocument, Message: "Invalid Policy: " + why, Err: errors.New(why)}
}

// ParsePostPolicy reads the policy field of a form. Names of its own elements
// are case-sensitive, names of fields are not. What it does not know it refuses.
func ParsePostPolicy(field string) (*PostPolicy, error) {
	raw, err := base64.StdEncoding.DecodeString(field)
	if err != nil {
		return nil, badPolicy("not base64.")
	}
	var doc map[string]json.RawMessage
	if err := decodeJSON(raw, &doc); err != nil {
		return nil, badPolicy("not JSON.")
	}
	p := &PostPolicy{BytesMax: -1}
	var expiration string
	var conditions []json.RawMessage
	for name, value := range doc {
		switch name {
		case "expiration":
			err = json.Unmarshal(value, &expiration)
		case "conditions":
			err = json.Unmarshal(value, &conditions)
		default:
			err = errors.New("unknown")
		}
		if err != nil {
			return nil, badPolicy("element " + printable(name) + ".")
		}
	}
	if p.expires, err = time.Parse(time.RFC3339, expiration); err != nil {
		return nil, badPolicy("no valid expiration.")
	}
	if conditions == nil {
		return nil, badPolicy("no conditions.")
	}
	for _, c := range conditions {
		if err := p.add(c); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// decodeJSON reads one document and nothing behind it.
func decodeJSON(raw []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if err := d.Decode(into); err != nil {
		return err
	}
	if d.More() {
		return errors.New("text behind the document")
	}
	return nil
}

// add reads one condition: {"field": "value"} or ["operator", "$field", "value"].
func (p *PostPolicy) add(raw json.RawMessage) error {
	var exact map[string]string
	if json.Unmarshal(raw, &exact) == nil && len(exact) > 0 {
		for field, value := range exact {
			p.conditions = append(p.conditions, postCondition{field: strings.ToLower(field), value: value})
		}
		return nil
	}
	var list []any
	if decodeJSON(raw, &list) != nil || len(list) != 3 {
		return badPolicy("a condition is neither an object nor a list of three.")
	}
	operator, _ := list[0].(string)
	switch strings.ToLower(operator) {
	case "content-length-range":
		from, okFrom := length(list[1])
		to, okTo := length(list[2])
		if !okFrom || !okTo || from > to {
			return badPolicy("content-length-range.")
		}
		p.BytesMin = max(p.BytesMin, from)
		if p.BytesMax < 0 || to < p.BytesMax {
			p.BytesMax = to
		}
		return nil
	case "eq", "starts-with":
		field, okField := list[1].(string)
		value, okValue := list[2].(string)
		name, dollar := strings.CutPrefix(field, "$")
		if !okField || !okValue || !dollar {
			return badPolicy("a condition needs $field and a value.")
		}
		p.conditions = append(p.conditions, postCondition{strings.ToLower(name), value, strings.EqualFold(operator, "starts-with")})
		return nil
	}
	return badPolicy("unknown operator.")
}

// length reads a number of bytes, which some clients write as text.
func length(v any) (int64, bool) {
	text := ""
	switch x := v.(type) {
	case json.Number:
		text = x.String()
	case string:
		text = x
	}
	n, err := strconv.ParseInt(text, 10, 64)
	return n, err == nil && n >= 0
}

// outsidePolicy are the fields that a policy need not mention.
var outsidePolicy = map[string]bool{
	"policy": true, "file": true, "x-amz-signature": true, "signature": true, "awsaccesskeyid": true,
}

// Judge says whether a form with these fields may be used at the given time.
// fields holds the fields by lower-case name, and the bucket. Every condition
// must hold, and every field must be in one.
func (p *PostPolicy) Judge(fields map[string]string, now time.Time) error {
	if !now.Before(p.expires) {
		return E(AccessDenied, "Invalid according to Policy: Policy expired.")
	}
	named := map[string]bool{}
	for _, c := range p.conditions {
		value := fields[c.field]
		if c.prefix && !strings.HasPrefix(value, c.value) || !c.prefix && value != c.value {
			return E(AccessDenied, "Invalid according to Policy: Policy Condition failed: "+c.String())
		}
		named[c.field] = true
	}
	for field := range fields {
		if !named[field] && !outsidePolicy[field] && !strings.HasPrefix(field, "x-ignore-") {
			return E(AccessDenied, "Invalid according to Policy: Extra input fields: "+printable(field))
		}
	}
	return nil
}
