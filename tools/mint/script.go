package main

import (
	"bufio"
	"bytes"
	"fmt"
	"regexp"
	"strings"

	"ashlar/tools/acceptance"
)

// resultMark begins the line that a rewritten script prints after each test: then come
// the test's name and its exit status.
const resultMark = "ashlar-mint-result"

var (
	defLine  = regexp.MustCompile(`^(?:function )?(\w+)\(\) *\{`)
	callLine = regexp.MustCompile(`^(\s*)(test_\w+)\s*(?:&&)?\s*$`)
)

// rewrite returns a script of mint without the tests that are kept for acceptance,
// and how many others it runs: each in a process of its own, so that one that fails
// does not end the rest, and with its result behind it.
func rewrite(script []byte) (out []byte, tests int, err error) {
	var b bytes.Buffer
	dropping, runner := false, false
	lines := bufio.NewScanner(bytes.NewReader(script))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		if m := defLine.FindStringSubmatch(line); m != nil {
			test := strings.HasPrefix(m[1], "test_")
			dropping = test && acceptance.Keeps(m[1])
			runner = m[1] == "main" || m[1] == "run_test"
		}
		if dropping {
			dropping = line != "}"
			continue
		}
		if m := callLine.FindStringSubmatch(line); m != nil && runner {
			if acceptance.Keeps(m[2]) {
				line = m[1] + ":"
			} else {
				tests++
				line = fmt.Sprintf(`%s( %s ); echo "%s %s $?"`, m[1], m[2], resultMark, m[2])
			}
		}
		b.WriteString(line + "\n")
	}
	return b.Bytes(), tests, lines.Err()
}

// result is what became of one test.
type result struct {
	test   string
	passed bool
	absent bool   // the test says that it is not applicable
	reason string // the line that said why not
}

// results reads what a rewritten script printed.
func results(output []byte) (list []result) {
	reason := ""
	for line := range strings.Lines(string(output)) {
		line = strings.TrimSpace(line)
		fields := strings.Fields(line)
		if len(fields) == 3 && fields[0] == resultMark {
			list = append(list, result{test: fields[1], passed: fields[2] == "0", reason: reason})
			reason = ""
			continue
		}
		if strings.Contains(line, `"FAIL"`) {
			reason = line
		}
	}
	return list
}
