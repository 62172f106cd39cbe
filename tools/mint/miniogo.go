package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"go/ast"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"ashlar/tools/acceptance"
)

// Lines that the rewritten tests of minio-go print around each.
const (
	beginMark = "ashlar-mint-begin"
	panicMark = "ashlar-mint-panic"
	endMark   = "ashlar-mint-end"
)

// version2 ends the names of minio-go's tests that sign with Signature Version 2.
const version2 = "V2"

// runner is added to minio-go's tests: one that panics is a failure and ends nothing else.
const runner = `
func ashlarMint(name string, test func()) {
	fmt.Println("` + beginMark + ` " + name)
	defer func() {
		if r := recover(); r != nil {
			fmt.Println("` + panicMark + `", r)
		}
		fmt.Println("` + endMark + `")
	}()
	test()
}
`

var goCall = regexp.MustCompile(`^\s*(test\w+)\(\)$`)

// isGoTest reports whether a function is one of minio-go's tests: testName, without
// parameters and results.
func isGoTest(fn *ast.FuncDecl) bool {
	return fn.Recv == nil && strings.HasPrefix(fn.Name.Name, "test") && fn.Type.Params.NumFields() == 0 && fn.Type.Results.NumFields() == 0
}

// rewriteGo returns minio-go's functional tests without those that are kept for
// acceptance, and the names of the others in the order in which main calls them.
func rewriteGo(src []byte) (out []byte, tests []string, err error) {
	if src, _, err = acceptance.WithoutTests(src, isGoTest); err != nil {
		return nil, nil, err
	}
	seen := map[string]bool{}
	inMain := false
	var b strings.Builder
	for line := range strings.Lines(string(src)) {
		text := strings.TrimRight(line, "\n")
		switch m := goCall.FindStringSubmatch(text); {
		case text == "func main() {":
			inMain = true
		case text == "}":
			inMain = false
		case inMain && m != nil && acceptance.Keeps(m[1]):
			continue
		case inMain && m != nil:
			if !seen[m[1]] {
				seen[m[1]] = true
				tests = append(tests, m[1])
			}
			line = fmt.Sprintf("ashlarMint(%q, %s)\n", m[1], m[1])
		}
		b.WriteString(line)
	}
	b.WriteString(runner)
	out, err = acceptance.WithoutImports([]byte(b.String()))
	return out, tests, err
}

// goTests builds minio-go's functional tests in their checkout, which it does not
// change, and runs all of them. It returns what they printed.
func (c *config) goTests(dir string, source []byte) ([]byte, error) {
	script, err := filepath.Abs(c.script)
	if err != nil {
		return nil, err
	}
	changed, overlay, binary := filepath.Join(dir, "tests.go"), filepath.Join(dir, "overlay.json"), filepath.Join(dir, "tests")
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {script: changed}})
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(changed, source, 0o600); err != nil {
		return nil, err
	}
	if err := os.WriteFile(overlay, replace, 0o600); err != nil {
		return nil, err
	}
	build := exec.Command("go", "build", "-overlay", overlay, "-o", binary, filepath.Base(script))
	build.Dir = filepath.Dir(script)
	if said, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go build %s: %w: %.2000s", script, err, said)
	}
	return c.execute(dir, []string{binary}, "MINT_MODE=full", "RUN_ON_FAIL=1", "SKIP_CERT_VALIDATION=1")
}

// goResults reads what the tests printed.
func goResults(output []byte) (list []result) {
	for _, section := range strings.Split(string(output), beginMark+" ")[1:] {
		name, text, _ := strings.Cut(section, "\n")
		list = append(list, goResult(name, text))
	}
	return list
}

// goResult judges one test by all that it printed. It has failed if one line says so, and
// is not applicable if no line says anything else.
func goResult(name, text string) result {
	r := result{test: name}
	passes, absence, ended := 0, "", false
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		var record struct{ Status string }
		switch {
		case line == endMark:
			ended = true
		case strings.HasPrefix(line, panicMark):
			record.Status = "FAIL"
		case json.Unmarshal([]byte(line), &record) != nil:
			continue
		}
		switch record.Status {
		case "PASS":
			passes++
		case "NA":
			absence = cmp.Or(absence, line)
		case "FAIL":
			r.reason = cmp.Or(r.reason, line)
		}
	}
	if !ended {
		r.reason = cmp.Or(r.reason, "the tests ended in it")
	}
	r.absent = r.reason == "" && passes == 0 && absence != ""
	r.passed = r.reason == "" && !r.absent
	if r.absent {
		r.reason = absence
	}
	return r
}
