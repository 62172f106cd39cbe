package layering

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// docLinesMin is the shortest documentation of a package.
const docLinesMin = 5

// Violation is one place where the tree breaks a rule.
type Violation struct {
	// File is relative to the root of the tree; Line is zero for a whole file or folder.
	File string
	Line int
	Rule string
}

func (v Violation) String() string {
	if v.Line == 0 {
		return v.File + ": " + v.Rule
	}
	return fmt.Sprintf("%s:%d: %s", v.File, v.Line, v.Rule)
}

// checker collects the violations of one tree.
type checker struct {
	*policy
	root  string
	found []Violation
	docs  map[string]int // package folder → lines of its longest package comment
}

// Check reads the tree at root and returns every violation of the policy.
func Check(root string) ([]Violation, error) {
	p, err := parsePolicy(policyText)
	if err != nil {
		return nil, err
	}
	c := &checker{policy: p, root: root, docs: map[string]int{}}
	if err := c.topLevel(); err != nil {
		return nil, fmt.Errorf("layering: top level: %w", err)
	}
	if err := filepath.WalkDir(root, c.visit); err != nil {
		return nil, fmt.Errorf("layering: %w", err)
	}
	for folder, lines := range c.docs {
		if lines < docLinesMin {
			c.add(folder, 0, fmt.Sprintf("the package comment has %d lines, want at least %d", lines, docLinesMin))
		}
	}
	slices.SortFunc(c.found, func(a, b Violation) int { return strings.Compare(a.String(), b.String()) })
	return c.found, nil
}

func (c *checker) add(file string, line int, rule string) {
	c.found = append(c.found, Violation{File: file, Line: line, Rule: rule})
}

// topLevel: the listed rooms, go.mod and go.sum, Go files of the vocabulary,
// documents, dot-files, and what git ignores by name.
func (c *checker) topLevel() error {
	entries, err := os.ReadDir(c.root)
	if err != nil {
		return err
	}
	ignored, _ := os.ReadFile(filepath.Join(c.root, ".gitignore")) // a tree may have none
	for _, e := range entries {
		name := e.Name()
		switch {
		case name[0] == '.', e.IsDir() && slices.Contains(c.top, name), isIgnored(ignored, name):
		case !e.IsDir() && (slices.Contains([]string{"go.mod", "go.sum", "LICENSE"}, name) || path.Ext(name) == ".go" || path.Ext(name) == ".md"):
		default:
			c.add(name, 0, "only the rooms of policy.txt, the vocabulary, documents and dot-files may be at the top")
		}
	}
	return nil
}

func isIgnored(gitignore []byte, name string) bool {
	for line := range strings.Lines(string(gitignore)) {
		if ok, _ := path.Match(strings.Trim(strings.TrimSpace(line), "/"), name); ok {
			return true
		}
	}
	return false
}

func (c *checker) visit(file string, e fs.DirEntry, err error) error {
	if err != nil {
		return err
	}
	relative, err := filepath.Rel(c.root, file)
	if err != nil {
		return err
	}
	if e.IsDir() {
		if relative != "." && (e.Name()[0] == '.' || e.Name() == "testdata" || path.Dir(relative) == "." && !slices.Contains(c.top, relative)) {
			return fs.SkipDir
		}
		return nil
	}
	if path.Ext(relative) != ".go" {
		return nil
	}
	return c.file(filepath.ToSlash(relative))
}

// file applies every rule to one Go file.
func (c *checker) file(name string) error {
	source, err := os.ReadFile(filepath.Join(c.root, name))
	if err != nil {
		return err
	}
	set := token.NewFileSet()
	parsed, err := parser.ParseFile(set, name, source, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		c.add(name, 0, "does not parse: "+err.Error())
		return nil
	}
	if !ast.IsGenerated(parsed) {
		if formatted, err := format.Source(source); err != nil || !bytes.Equal(formatted, source) {
			c.add(name, 0, "is not formatted with gofmt")
		}
	}
	pkg, test := path.Dir(name), strings.HasSuffix(name, "_test.go")
	c.packageComment(pkg, parsed)
	if slices.Contains(c.names, strings.TrimSuffix(parsed.Name.Name, "_test")) {
		c.add(name, set.Position(parsed.Name.Pos()).Line, "a package must not be called "+parsed.Name.Name)
	}
	imported := map[string]string{} // name in this file → import path
	for _, spec := range parsed.Imports {
		importPath, _ := strconv.Unquote(spec.Path.Value) // the parser accepted it
		imported[importName(spec, importPath)] = importPath
		line := set.Position(spec.Pos()).Line
		c.oneImport(name, line, pkg, importPath, test)
		if !test {
			c.bannedUse(name, line, pkg, importPath)
		}
	}
	if test {
		return nil
	}
	ast.Inspect(parsed, func(n ast.Node) bool {
		if selector, ok := n.(*ast.SelectorExpr); ok {
			if left, ok := selector.X.(*ast.Ident); ok && imported[left.Name] != "" {
				c.bannedUse(name, set.Position(n.Pos()).Line, pkg, imported[left.Name]+"."+selector.Sel.Name)
			}
		}
		return true
	})
	return nil
}

// packageComment keeps the longest comment of a package. A comment in a test
// file documents only a package that is nothing but tests.
func (c *checker) packageComment(pkg string, file *ast.File) {
	lines := 0
	if file.Doc != nil && !ast.IsGenerated(file) {
		lines = strings.Count(file.Doc.Text(), "\n")
	}
	c.docs[pkg] = max(c.docs[pkg], lines)
}

func importName(spec *ast.ImportSpec, importPath string) string {
	if spec.Name != nil {
		return spec.Name.Name
	}
	base := path.Base(importPath)
	if isMajor(base) {
		base = path.Base(path.Dir(importPath))
	}
	return base
}

// oneImport judges an import by the import rules, the forbidden modules and
// the modules for tests.
func (c *checker) oneImport(file string, line int, pkg, importPath string, test bool) {
	if f := c.isForbidden(importPath); f != nil {
		c.add(file, line, fmt.Sprintf("%s must not be linked: %s (policy.txt:%d)", importPath, f.reason, f.line))
		return
	}
	if !test && c.isTestOnly(pkg, importPath) {
		c.add(file, line, importPath+" is for tests only (policy.txt, [test-only])")
		return
	}
	what := ""
	first, _, _ := strings.Cut(importPath, "/")
	switch {
	case importPath == module:
		what = "."
	case first == module:
		what = strings.TrimPrefix(importPath, module+"/")
	case strings.Contains(first, "."):
		what = "libs"
	default:
		return // the standard library
	}
	if what == pkg || what == "libs" && test {
		return
	}
	allowed, known := c.mayImport(pkg, what, test)
	switch {
	case !known:
		c.add(file, line, fmt.Sprintf("package %s belongs to no room of policy.txt", pkg))
	case !allowed && what == "libs":
		c.add(file, line, fmt.Sprintf("%s may import only the standard library, not %s (policy.txt, [imports])", pkg, importPath))
	case !allowed:
		c.add(file, line, fmt.Sprintf("%s may not import %s (policy.txt, [imports])", pkg, what))
	}
}

// bannedUse judges "import/path" or "import/path.Name".
func (c *checker) bannedUse(file string, line int, pkg, use string) {
	for _, r := range c.banned {
		if c.matches(r.who, pkg) && slices.Contains(r.what, use) {
			c.add(file, line, fmt.Sprintf("%s must not be used in %s (policy.txt:%d)", use, pkg, r.line))
		}
	}
}
