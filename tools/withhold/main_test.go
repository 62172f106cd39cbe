package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ashlar/tools/acceptance"
)

// kept and free are names of either side of the rule.
const kept, free = "Kept_0", "Free_0"

func TestWithhold(t *testing.T) {
	if !acceptance.Keeps(kept) || acceptance.Keeps(free) {
		t.Fatal("the names are on the wrong sides")
	}
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("a.go", `package integration

import (
	"fmt"
	"strings"

	"example.test/other-go"
	"example.test/thing/v2"
)

// `+kept+` is secret.
func `+kept+`(s *S3Conf) error { return fmt.Errorf(thing.Secret) }

func `+free+`(s *S3Conf) error { return helper(strings.ToLower(other.Text)) }

func helper(s string) error { return nil }
`)
	write(groupsFile, "package integration\n\nfunc Test(ts *TestState) {\n\tts.Run("+kept+")\n\tts.Run("+free+")\n}\n")
	tests, out, err := withhold(dir)
	if err != nil || tests != 2 || out != 1 {
		t.Fatal(tests, out, err)
	}
	for _, name := range []string{"a.go", groupsFile} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, gone := range []string{kept, "secret", "Secret", `"fmt"`, "thing"} {
			if strings.Contains(string(text), gone) {
				t.Errorf("%s still says %s:\n%s", name, gone, text)
			}
		}
		if name == "a.go" && !strings.Contains(string(text), `"example.test/other-go"`) {
			t.Error("an import that is used is gone")
		}
		if !strings.Contains(string(text), free) {
			t.Errorf("%s: %s is gone:\n%s", name, free, text)
		}
	}
}

func TestWithholdNeedsTests(t *testing.T) {
	if _, _, err := withhold(t.TempDir()); err == nil {
		t.Fatal("an empty folder passes")
	}
}
