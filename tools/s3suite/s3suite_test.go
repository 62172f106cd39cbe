package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ashlar/tools/acceptance"
)

// TestCollect: kept tests are left out, groups follow names and marks, and what
// pytest says is counted.
func TestCollect(t *testing.T) {
	dir := t.TempDir()
	for i, name := range testFiles {
		text := ""
		if i == 0 {
			text = "@pytest.mark.tagging\n@pytest.mark.bucket_logging\n# why\n@pytest.mark.x\ndef test_marked():\n    pass\n\n" +
				"def test_alpha_copy():\n    def test_inner():\n        pass\n\n" +
				"@pytest.mark.x\nCONST = 1\ndef test_get_object():\n    pass\ndef test_kept_candidate_3():\n    pass\n"
		}
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := collect(dir)
	if err != nil {
		t.Fatal(err)
	}
	groups := map[string]string{}
	for _, x := range got {
		if acceptance.Keeps(x.name) {
			t.Errorf("%s is kept for acceptance, but was collected", x.name)
		}
		groups[x.name] = x.group
	}
	for name, group := range map[string]string{"test_marked": outOfScope, "test_alpha_copy": "copy", "test_get_object": "object"} {
		if g, there := groups[name]; !acceptance.Keeps(name) && (g != group || !there) {
			t.Errorf("%s is in group %q, want %q", name, g, group)
		}
	}
	if _, inner := groups["test_inner"]; inner {
		t.Error("a nested function was collected")
	}
}

// The rule, on names whose SHA-1 was computed elsewhere.
func TestKept(t *testing.T) {
	for name, want := range map[string]bool{"abc": false, "abd": false, "abf": true, "q": true} {
		if acceptance.Keeps(name) != want {
			t.Errorf("%q is kept: %t", name, !want)
		}
	}
}

func TestReport(t *testing.T) {
	const junit = `<testsuites><testsuite><testcase name="test_a[1]"/><testcase name="test_a[2]"><failure message="no&#10;more"/></testcase>
		<testcase name="test_b"><skipped message="s"/></testcase></testsuite></testsuites>`
	results, err := readJUnit(strings.NewReader(junit), []test{{name: "test_a", group: "g"}, {name: "test_b", group: "h"}, {name: "test_c", group: "h"}})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if failed := report(&out, results, true); failed != 2 {
		t.Errorf("%d failed, want 2", failed)
	}
	for _, want := range []string{"test_a[2]: no\n", "test_c: pytest did not run it\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}
