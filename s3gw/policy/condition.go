package policy

import (
	"math/big"
	"net/netip"
	"strings"
	"time"
)

type quantifier uint8

const (
	single quantifier = iota
	forAll
	forAny
)

// condition is one operator, one key and the values that it is compared with.
type condition struct {
	op         *operator
	quantifier quantifier
	ifExists   bool
	key        string // lower case
	values     []operand
}

// operand is a value of a condition, read as its operator wants it.
type operand struct {
	text   pattern
	number *big.Rat
	time   time.Time
	net    netip.Prefix
	truth  bool
}

// operator compares a value of the request with one of the policy.
type operator struct {
	name    string
	negated bool
	parse   func(text string, variables bool) (operand, bool)
	is      func(o *operand, value string, r *Request) bool
}

const nullName = "null"

// operators by lower-case name.
var operators = func() map[string]*operator {
	m := map[string]*operator{}
	add := func(name, not string, parse func(string, bool) (operand, bool), is func(*operand, string, *Request) bool) {
		m[lower(name)] = &operator{name: name, parse: parse, is: is}
		if not != "" {
			m[lower(not)] = &operator{name: not, negated: true, parse: parse, is: is}
		}
	}
	exact, wild := textOperand(false), textOperand(true)
	equal := func(o *operand, v string, r *Request) bool { return o.text.match(v, r) }
	add("StringEquals", "StringNotEquals", exact, equal)
	add("StringEqualsIgnoreCase", "StringNotEqualsIgnoreCase", exact, equalFold)
	add("StringLike", "StringNotLike", wild, equal)
	add("ArnEquals", "ArnNotEquals", wild, arnLike)
	add("ArnLike", "ArnNotLike", wild, arnLike)
	add("BinaryEquals", "", exact, equal)
	add("Bool", "", boolOperand, func(o *operand, v string, _ *Request) bool {
		b, ok := parseBool(v)
		return ok && b == o.truth
	})
	add(nullName, "", boolOperand, nil)
	add("IpAddress", "NotIpAddress", netOperand, func(o *operand, v string, _ *Request) bool {
		a, err := netip.ParseAddr(v)
		return err == nil && o.net.Contains(a.Unmap())
	})
	for _, c := range []struct {
		suffix, not string
		holds       func(order int) bool
	}{
		{"Equals", "NotEquals", func(n int) bool { return n == 0 }},
		{"LessThan", "", func(n int) bool { return n < 0 }}, {"LessThanEquals", "", func(n int) bool { return n <= 0 }},
		{"GreaterThan", "", func(n int) bool { return n > 0 }}, {"GreaterThanEquals", "", func(n int) bool { return n >= 0 }},
	} {
		not := func(kind string) string {
			if c.not == "" {
				return ""
			}
			return kind + c.not
		}
		add("Numeric"+c.suffix, not("Numeric"), numberOperand, func(o *operand, v string, _ *Request) bool {
			n, ok := parseNumber(v)
			return ok && c.holds(n.Cmp(o.number))
		})
		add("Date"+c.suffix, not("Date"), dateOperand, func(o *operand, v string, _ *Request) bool {
			t, ok := parseDate(v)
			return ok && c.holds(t.Compare(o.time))
		})
	}
	return m
}()

func textOperand(wild bool) func(string, bool) (operand, bool) {
	return func(text string, variables bool) (operand, bool) {
		p, ok := parsePattern(text, wild, variables)
		return operand{text: p}, ok
	}
}

func equalFold(o *operand, v string, r *Request) bool {
	if o.text.isText {
		return strings.EqualFold(o.text.plain, v)
	}
	symbols, ok := o.text.symbols(r)
	return ok && strings.EqualFold(string(symbols), v)
}

func boolOperand(text string, _ bool) (o operand, ok bool) {
	o.truth, ok = parseBool(text)
	return o, ok
}

func parseBool(s string) (value, ok bool) {
	t := strings.EqualFold(s, "true")
	return t, t || strings.EqualFold(s, "false")
}

func netOperand(text string, _ bool) (operand, bool) {
	n, ok := parseNet(text)
	return operand{net: n}, ok
}

// parseNet reads an address or a range.
func parseNet(s string) (netip.Prefix, bool) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), true
	}
	n, err := netip.ParsePrefix(s)
	if err != nil || n.Addr().Is4In6() {
		return n, false
	}
	return n.Masked(), true
}

const numberBytesMax = 64

func numberOperand(text string, _ bool) (operand, bool) {
	n, ok := parseNumber(text)
	return operand{number: n}, ok
}

// parseNumber reads a decimal number without an exponent, which would be a way
// to make a number of a gigabyte.
func parseNumber(s string) (*big.Rat, bool) {
	if s == "" || len(s) > numberBytesMax || strings.Trim(s, "+-.0123456789") != "" {
		return nil, false
	}
	return new(big.Rat).SetString(s)
}

func dateOperand(text string, _ bool) (operand, bool) {
	t, ok := parseDate(text)
	return operand{time: t}, ok
}

var dateLayouts = []string{time.RFC3339, "2006-01-02T15:04:05Z0700", "2006-01-02T15:04Z07:00", "2006-01-02T15:04:05", "2006-01-02"}

// parseDate reads ISO 8601 or seconds since 1970.
func parseDate(s string) (time.Time, bool) {
	for _, layout := range dateLayouts {
		if t, err := time.Parse(layout, s); err == nil {
			return t, true
		}
	}
	n, ok := parseNumber(s)
	if !ok || !n.IsInt() || !n.Num().IsInt64() {
		return time.Time{}, false
	}
	return time.Unix(n.Num().Int64(), 0), true
}

// arnLike compares colon by colon: a wildcard does not cross one, but in the
// last of the six parts.
func arnLike(o *operand, v string, r *Request) bool {
	symbols, ok := o.text.symbols(r)
	if !ok {
		return false
	}
	want, got := splitARN(symbols), splitARN([]rune(v))
	if len(want) != len(got) || len(got) != arnParts {
		return false
	}
	for i := range want {
		if !glob(want[i], got[i]) {
			return false
		}
	}
	return true
}

const arnParts = 6

func splitARN(s []rune) (parts [][]rune) {
	for len(parts) < arnParts-1 {
		i := 0
		for i < len(s) && s[i] != ':' {
			i++
		}
		if i == len(s) {
			break
		}
		parts, s = append(parts, s[:i]), s[i+1:]
	}
	return append(parts, s)
}

// holds judges the condition.
func (c *condition) holds(r *Request) bool {
	values := r.values(c.key)
	switch {
	case c.op.is == nil: // Null: true asks that the key is absent
		for i := range c.values {
			if c.values[i].truth == (len(values) == 0) {
				return true
			}
		}
		return false
	case len(values) == 0:
		return c.ifExists || c.quantifier == forAll || c.quantifier == single && c.op.negated
	}
	switch c.quantifier {
	case forAll:
		for _, v := range values {
			if c.one(v, r) == c.op.negated {
				return false
			}
		}
		return true
	case forAny:
		for _, v := range values {
			if c.one(v, r) != c.op.negated {
				return true
			}
		}
		return false
	}
	for _, v := range values {
		if c.one(v, r) {
			return !c.op.negated
		}
	}
	return c.op.negated
}

// one reports whether a value of the request is one of the policy's.
func (c *condition) one(v string, r *Request) bool {
	for i := range c.values {
		if c.op.is(&c.values[i], v, r) {
			return true
		}
	}
	return false
}
