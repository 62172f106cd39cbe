package policy

import (
	"strings"
	"unicode/utf8"
)

func lower(s string) string { return strings.ToLower(s) }

// Symbols of a pattern beside characters.
const (
	manyChars = -1 // *
	oneChar   = -2 // ?
)

// piece is a run of symbols, or a variable.
type piece struct {
	symbols  []rune
	variable string // lower case; empty for symbols
	def      string
	hasDef   bool
}

// pattern is a text with wildcards and variables.
type pattern struct {
	pieces []piece
	plain  string // the whole text, if it has neither
	isText bool
}

// parsePattern reads a text. Wildcards mean something if wild is set, variables
// if variables is. It fails where a variable is not closed or has no name.
func parsePattern(text string, wild, variables bool) (p pattern, ok bool) {
	var run []rune
	flush := func() {
		if len(run) > 0 {
			p.pieces = append(p.pieces, piece{symbols: run})
			run = nil
		}
	}
	p.isText = true
	for i := 0; i < len(text); {
		if variables && strings.HasPrefix(text[i:], "${") {
			end := strings.IndexByte(text[i:], '}')
			if end < 0 {
				return p, false
			}
			v, valid := parseVariable(text[i+2 : i+end])
			i += end + 1
			p.isText = false
			switch {
			case !valid:
				return p, false
			case v.variable == "": // an escaped symbol
				run = append(run, v.symbols...)
			default:
				flush()
				p.pieces = append(p.pieces, v)
			}
			continue
		}
		c, size := utf8.DecodeRuneInString(text[i:])
		i += size
		if wild && (c == '*' || c == '?') {
			c = map[rune]rune{'*': manyChars, '?': oneChar}[c]
			p.isText = false
		}
		run = append(run, c)
	}
	flush()
	p.plain = text
	return p, true
}

func parseVariable(s string) (piece, bool) {
	switch s {
	case "*", "?", "$":
		return piece{symbols: []rune(s)}, true
	}
	name, def, hasDef := strings.Cut(s, ",")
	name, def = strings.TrimSpace(name), strings.TrimSpace(def)
	if hasDef {
		if len(def) < 2 || def[0] != '\'' || def[len(def)-1] != '\'' {
			return piece{}, false
		}
		def = def[1 : len(def)-1]
	}
	return piece{variable: lower(name), def: def, hasDef: hasDef}, knownKey(name)
}

// symbols writes out the variables. It fails where one has no single value: then
// the pattern matches nothing.
func (p *pattern) symbols(r *Request) ([]rune, bool) {
	if len(p.pieces) == 1 && p.pieces[0].variable == "" {
		return p.pieces[0].symbols, true
	}
	var out []rune
	for i := range p.pieces {
		v := &p.pieces[i]
		if v.variable == "" {
			out = append(out, v.symbols...)
			continue
		}
		switch values := r.values(v.variable); {
		case len(values) == 1:
			out = append(out, []rune(values[0])...)
		case len(values) == 0 && v.hasDef:
			out = append(out, []rune(v.def)...)
		default:
			return nil, false
		}
	}
	return out, true
}

func (p *pattern) match(text string, r *Request) bool {
	if p.isText {
		return p.plain == text
	}
	symbols, ok := p.symbols(r)
	return ok && glob(symbols, []rune(text))
}

// fixed reports whether a pattern names one text: no wildcard, no variable.
func (p *pattern) fixed() bool { return p.isText }

// glob matches in linear memory and at worst quadratic time.
func glob(symbols, text []rune) bool {
	s, t, star, mark := 0, 0, -1, 0
	for t < len(text) {
		switch {
		case s < len(symbols) && symbols[s] == manyChars:
			star, mark = s, t
			s++
		case s < len(symbols) && (symbols[s] == oneChar || symbols[s] == text[t]):
			s++
			t++
		case star >= 0:
			mark++
			s, t = star+1, mark
		default:
			return false
		}
	}
	for s < len(symbols) && symbols[s] == manyChars {
		s++
	}
	return s == len(symbols)
}
