package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ashlar/tools/acceptance"
)

// kept and free are names of either side of the rule.
const kept, free, broken = "test_0", "test_2", "test_3"

// TestRun runs a script as mint writes them: what is kept is neither run nor there, what
// fails does not end the rest, and each result is counted.
func TestRun(t *testing.T) {
	if !acceptance.Keeps(kept) || acceptance.Keeps(free) || acceptance.Keeps(broken) {
		t.Fatal("the names are on the wrong sides")
	}
	script := `#!/bin/bash
function log() {
	echo "{\"status\": \"$1\"}"
}
function ` + broken + `() {
	log FAIL
	exit 3
}
` + kept + `() {
	touch was-run
}
function ` + free + `() {
	[ "$SERVER_ENDPOINT" = 127.0.0.1:1 ] && [ -s "$MINT_DATA_DIR/datafile-1-b" ] && [ ! -e touched ]
}
main() {
	` + kept + ` &&
	` + broken + ` &&
		# a comment
		` + free + ` &&
		` + broken + `
	if [ "$ENABLE_HTTPS" = 1 ]; then
		` + kept + `
	fi
	if [ "$ENABLE_HTTPS" = 1 ]; then
		` + free + `
	fi
	return $?
}
main
`
	dir := t.TempDir()
	path := filepath.Join(dir, "test.sh")
	if err := os.WriteFile(path, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	out, tests, err := rewrite([]byte(script))
	if err != nil || tests != 4 || bytes.Contains(out, []byte(kept)) || bytes.Contains(out, []byte("was-run")) {
		t.Fatalf("%d tests, %v:\n%s", tests, err, out)
	}
	c := config{script: path, endpoint: "127.0.0.1:1", accessKey: "k", secretKey: "s", failures: true, timeout: 1 << 36}
	got := report(t, c)
	if !strings.Contains(got, "1 passed, 2 failed of 4\n1 were not run\n") || !strings.Contains(got, `FAILED `+broken+`: {"status": "FAIL"}`) {
		t.Error(got)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "ashlar-mint-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
	if err := os.WriteFile(path, []byte("echo nothing\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.run(io.Discard); err == nil {
		t.Error("a script without tests is taken")
	}
}

// Names of minio-go's tests on either side of the rule.
const keptGo, freeGo = "testHidden", "testFree"

// TestRunGo runs tests as minio-go writes them: by function, with what is kept cut out.
func TestRunGo(t *testing.T) {
	if !acceptance.Keeps(keptGo) || acceptance.Keeps(freeGo) {
		t.Fatal("the names are on the wrong sides")
	}
	source := `//go:build mint

package main

import (
	"fmt"
	"os"
	"strings"
)

func say(status string) { fmt.Printf("{\"name\": \"minio-go: x\", \"status\": %q}\n", status) }

// ` + keptGo + ` is secret.
func ` + keptGo + `() { os.WriteFile(strings.ToLower("WAS-RUN"), nil, 0o600) }

func ` + freeGo + `() {
	if os.Getenv("SERVER_ENDPOINT") == "127.0.0.1:1" && os.Getenv("MINT_MODE") == "full" {
		say("PASS")
		say("NA")
	}
}

func testBroken() { say("FAIL"); say("PASS") }
func testAway()   { say("NA") }
func testPanics() { panic("no") }
func testSilent() {}
func testOldV2()  { say("FAIL") }
func testFineV2() { say("PASS") }
func testSecret() { say("PASS"); os.Exit(0) }
func testPlain()  { say("PASS") }

func main() {
	if os.Getenv("ENABLE_HTTPS") == "0" {
		` + keptGo + `()
		testBroken()
		` + freeGo + `()
		testAway()
		testPanics()
		testSilent()
		testOldV2()
		testFineV2()
		testSecret()
		testPlain()
	} else {
		` + freeGo + `()
	}
}
`
	dir := t.TempDir()
	path := filepath.Join(dir, "functional_tests.go")
	if err := os.WriteFile(path, []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	out, tests, err := rewriteGo([]byte(source))
	if err != nil || len(tests) != 9 || bytes.Contains(out, []byte(keptGo)) || bytes.Contains(out, []byte("strings")) {
		t.Fatalf("%v, %v:\n%s", tests, err, out)
	}
	got := report(t, config{script: path, endpoint: "127.0.0.1:1", accessKey: "k", secretKey: "s", failures: true, timeout: 1 << 36})
	for _, line := range []string{
		"3 passed, 4 failed, 1 not applicable of 9\n1 were not run\nwithout Signature Version 2: 2 passed, 3 failed, 1 not applicable of 7\n",
		"FAILED testBroken: {", "FAILED testPanics: " + panicMark + " no\n", "FAILED testSecret: the tests ended in it\n",
	} {
		if !strings.Contains(got, line) {
			t.Errorf("no %q in\n%s", line, got)
		}
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

// report runs the script in its own folder and returns what is said of it.
func report(t *testing.T, c config) string {
	t.Setenv("TMPDIR", filepath.Dir(c.script))
	var b bytes.Buffer
	if err := c.run(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
