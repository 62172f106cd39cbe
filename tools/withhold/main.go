// Command withhold takes out of a checkout of versitygw the client-side tests that
// are kept for acceptance, so that neither they are run nor anybody reads them.
//
//	go run ./tools/withhold DIR/tests/integration
//
// A test is a function that takes a *S3Conf and returns an error. Package acceptance
// says which are kept.
// Its declaration goes with its comment, and so does every line of group-tests.go
// that names it and every import that nobody needs any more; the command then
// builds as usual. The files are changed in place: give it a copy.
package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"ashlar/tools/acceptance"
)

// groupsFile lists the tests; everything else declares them.
const groupsFile = "group-tests.go"

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: withhold DIR/tests/integration")
		os.Exit(2)
	}
	tests, kept, err := withhold(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "withhold:", err)
		os.Exit(1)
	}
	fmt.Printf("%d tests, %d of them kept for acceptance and taken out\n", tests, kept)
}

// withhold rewrites the Go files of a folder. It returns how many tests there were
// and how many of them it took out.
func withhold(dir string) (tests, kept int, err error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return 0, 0, err
	}
	names := map[string]bool{}
	sources := map[string][]byte{}
	for _, path := range paths {
		src, err := os.ReadFile(path)
		if err != nil {
			return 0, 0, err
		}
		out, found, err := acceptance.WithoutTests(src, isTest)
		if err != nil {
			return 0, 0, fmt.Errorf("%s: %w", path, err)
		}
		for _, name := range found {
			if names[name] = true; acceptance.Keeps(name) {
				kept++
			}
		}
		sources[path] = out
	}
	if len(names) == 0 {
		return 0, 0, fmt.Errorf("no tests in %s", dir)
	}
	for path, src := range sources {
		if filepath.Base(path) == groupsFile {
			src = withoutLines(src, names)
		}
		if src, err = acceptance.WithoutImports(src); err != nil {
			return 0, 0, fmt.Errorf("%s: %w", path, err)
		}
		if err := os.WriteFile(path, src, 0o644); err != nil {
			return 0, 0, err
		}
	}
	return len(names), kept, nil
}

// isTest reports whether a function is func(*S3Conf) error.
func isTest(fn *ast.FuncDecl) bool {
	t := fn.Type
	if fn.Recv != nil || t.Params.NumFields() != 1 || t.Results.NumFields() != 1 {
		return false
	}
	p, ok := t.Params.List[0].Type.(*ast.StarExpr)
	if !ok {
		return false
	}
	conf, _ := p.X.(*ast.Ident)
	result, _ := t.Results.List[0].Type.(*ast.Ident)
	return conf != nil && conf.Name == "S3Conf" && result != nil && result.Name == "error"
}

var word = regexp.MustCompile(`\w+`)

// withoutLines drops the lines that name a kept test.
func withoutLines(src []byte, names map[string]bool) []byte {
	var out []byte
	for line := range bytes.Lines(src) {
		named := slices.ContainsFunc(word.FindAllString(string(line), -1), func(w string) bool { return names[w] && acceptance.Keeps(w) })
		if !named {
			out = append(out, line...)
		}
	}
	return out
}
