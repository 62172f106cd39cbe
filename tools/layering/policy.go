// Package layering checks that the tree keeps to its own architecture: which
// room may import which, which modules must never be linked, what the pure
// rooms must not touch, that every package is documented and every file
// formatted, and that generated code is what its source generates.
//
// The rules are data, in policy.txt beside this file. The checker reads every
// Go file of the tree whatever its build tags, so that a rule cannot be evaded
// by a tag, and names the file, the line and the rule of every violation. It
// asks the go command once, for the modules that the binaries link.
//
// It is run by `go test ./tools/layering`; nothing else uses it.
package layering

import (
	_ "embed"
	"fmt"
	"path"
	"strings"
)

// module is the path of the module whose tree is checked.
const module = "ashlar"

//go:embed policy.txt
var policyText string

// rule is one line of the policy: who matches it, and what that is about.
type rule struct {
	line int
	who  []string // package patterns, relative to the module
	what []string
}

// forbidden is a module that must not be linked.
type forbidden struct {
	line         int
	path, reason string
}

// policy is policy.txt, read.
type policy struct {
	top, testOnly, pure, names   []string
	imports, testImports, banned []rule
	forbidden                    []forbidden
}

func parsePolicy(text string) (*policy, error) {
	p := &policy{}
	section := ""
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if line[0] == '[' {
			section = line
			continue
		}
		if err := p.add(section, number, line); err != nil {
			return nil, fmt.Errorf("policy.txt:%d: %w", number, err)
		}
	}
	return p, nil
}

func (p *policy) add(section string, number int, line string) error {
	words := strings.Fields(line)
	switch section {
	case "[top]":
		p.top = append(p.top, words...)
	case "[pure]":
		p.pure = append(p.pure, words...)
	case "[names]":
		p.names = append(p.names, words...)
	case "[test-only]":
		p.testOnly = append(p.testOnly, words...)
	case "[forbidden]":
		p.forbidden = append(p.forbidden, forbidden{number, words[0], strings.Join(words[1:], " ")})
	case "[imports]", "[test-imports]", "[banned]":
		left, right, ok := strings.Cut(line, "<")
		r := rule{line: number, who: strings.Fields(left), what: strings.Fields(right)}
		if !ok || len(r.who) == 0 {
			return fmt.Errorf("want WHO < WHAT, got %q", line)
		}
		switch section {
		case "[imports]":
			p.imports = append(p.imports, r)
		case "[test-imports]":
			p.testImports = append(p.testImports, r)
		default:
			p.banned = append(p.banned, r)
		}
	default:
		return fmt.Errorf("unknown section %q", section)
	}
	return nil
}

// matches reports whether a package, relative to the module, is meant by any of the patterns.
func (p *policy) matches(patterns []string, pkg string) bool {
	for _, pattern := range patterns {
		base, below := strings.CutSuffix(pattern, "/...")
		switch {
		case pattern == "pure" && p.matches(p.pure, pkg):
			return true
		case pkg == base || below && strings.HasPrefix(pkg, base+"/"):
			return true
		}
	}
	return false
}

// mayImport reports whether the rules let pkg import what, which is a package
// relative to the module or "libs", and whether any rule is about pkg at all.
func (p *policy) mayImport(pkg, what string, test bool) (allowed, known bool) {
	rules := p.imports
	if test {
		rules = append(rules[:len(rules):len(rules)], p.testImports...)
	}
	for _, r := range rules {
		if p.matches(r.who, pkg) {
			known = true
			allowed = allowed || p.matches(r.what, what)
		}
	}
	return allowed, known
}

// isForbidden returns the rule that forbids an import path, nil if none does.
func (p *policy) isForbidden(importPath string) *forbidden {
	for i, f := range p.forbidden {
		base, firstOnly := strings.CutSuffix(f.path, "@v1")
		rest, ok := strings.CutPrefix(importPath, base)
		if !ok || rest != "" && rest[0] != '/' {
			continue
		}
		if first, _, _ := strings.Cut(strings.TrimPrefix(rest, "/"), "/"); firstOnly && isMajor(first) {
			continue
		}
		return &p.forbidden[i]
	}
	return nil
}

func isMajor(element string) bool {
	return len(element) > 1 && element[0] == 'v' && strings.Trim(element[1:], "0123456789") == ""
}

// isTestOnly reports whether an import path is for tests, and pkg is neither a
// tool nor a conformance suite.
func (p *policy) isTestOnly(pkg, importPath string) bool {
	if strings.HasSuffix(path.Base(pkg), "test") || p.matches([]string{"tools/..."}, pkg) {
		return false
	}
	return p.matches(expand(p.testOnly), importPath)
}

func expand(paths []string) (patterns []string) {
	for _, s := range paths {
		patterns = append(patterns, s+"/...")
	}
	return patterns
}
