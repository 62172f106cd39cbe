package layering

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path/filepath"
	"testing"
)

// tree is the root of the module, seen from this package.
const tree = "../.."

func TestTreeKeepsToThePolicy(t *testing.T) {
	root, err := filepath.Abs(tree)
	if err != nil {
		t.Fatal(err)
	}
	found, err := Check(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range found {
		t.Error(v)
	}
}

// TestNoForbiddenModuleIsLinked looks at everything that any package of the
// module needs, however far away.
func TestNoForbiddenModuleIsLinked(t *testing.T) {
	p, err := parsePolicy(policyText)
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command("go", "list", "-e", "-deps", "-json=ImportPath,Standard", "./...")
	command.Dir = tree
	command.Env = append(command.Environ(), "CGO_ENABLED=0")
	out, err := command.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	packages := 0
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; packages++ {
		var one struct {
			ImportPath string
			Standard   bool
		}
		if err := decoder.Decode(&one); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if f := p.isForbidden(one.ImportPath); f != nil && !one.Standard {
			t.Errorf("%s is linked: %s (policy.txt:%d; go mod why -m tells by whom)", one.ImportPath, f.reason, f.line)
		}
	}
	if packages < 50 {
		t.Errorf("go list named %d packages: that is not this module", packages)
	}
}
