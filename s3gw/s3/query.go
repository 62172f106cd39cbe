package s3

import "strings"

// Param is one decoded query parameter. HasValue tells "uploads" from
// "uploads=", which mean the same but for signatures of some clients.
type Param struct {
	Name, Value string
	HasValue    bool
}

// Query is a query string, decoded, in the order in which it was sent.
type Query []Param

// ParseQuery decodes a raw query string. A broken percent escape is refused
// with InvalidURI: what was signed must be what is read.
func ParseQuery(raw string) (Query, error) {
	if raw == "" {
		return nil, nil
	}
	q := make(Query, 0, strings.Count(raw, "&")+1)
	for raw != "" {
		var pair string
		pair, raw, _ = strings.Cut(raw, "&")
		if pair == "" {
			continue
		}
		name, value, has := strings.Cut(pair, "=")
		n, okName := Unescape(name, true)
		v, okValue := Unescape(value, true)
		if !okName || !okValue {
			return nil, E(InvalidURI, "")
		}
		q = append(q, Param{n, v, has})
	}
	return q, nil
}

// Get returns the first value of name and whether name is present.
func (q Query) Get(name string) (string, bool) {
	for i := range q {
		if q[i].Name == name {
			return q[i].Value, true
		}
	}
	return "", false
}

// Has reports whether name is present.
func (q Query) Has(name string) bool { _, ok := q.Get(name); return ok }

// Value returns the first value of name, empty if there is none.
func (q Query) Value(name string) string { v, _ := q.Get(name); return v }

// Unescape decodes percent escapes, and "+" as a space if plus is set. It
// reports whether every escape was whole.
func Unescape(s string, plus bool) (string, bool) {
	if strings.IndexByte(s, '%') < 0 && (!plus || strings.IndexByte(s, '+') < 0) {
		return s, true
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '%':
			if i+2 >= len(s) {
				return "", false
			}
			hi, lo := unhex(s[i+1]), unhex(s[i+2])
			if hi < 0 || lo < 0 {
				return "", false
			}
			b = append(b, byte(hi<<4|lo))
			i += 2
		case c == '+' && plus:
			b = append(b, ' ')
		default:
			b = append(b, c)
		}
	}
	return string(b), true
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

const upperHex = "0123456789ABCDEF"

// unreserved are the bytes that AWS leaves as they are.
var unreserved = func() (t [256]bool) {
	for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~") {
		t[c] = true
	}
	return t
}()

// AppendEscaped appends s with every byte but the unreserved ones escaped, as
// signatures and encoding-type=url want it; slashes stay if keepSlash is set.
func AppendEscaped(b []byte, s string, keepSlash bool) []byte {
	for i := 0; i < len(s); i++ {
		if c := s[i]; unreserved[c] || c == '/' && keepSlash {
			b = append(b, c)
		} else {
			b = append(b, '%', upperHex[c>>4], upperHex[c&15])
		}
	}
	return b
}
