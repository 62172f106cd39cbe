package operate

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"testing"
)

// TestKindsOfRowsDiffer: rows of the gateway, of the trash and of reports share
// the shards, and the first byte of a key says whose it is.
func TestKindsOfRowsDiffer(t *testing.T) {
	kind := regexp.MustCompile(`^Kind([A-Z]\w*)?$`)
	seen := map[string]string{}
	for _, dir := range []string{"s3gw/store/row", "daemon/meta/trash", "daemon/orphan"} {
		files, err := filepath.Glob(filepath.Join("..", "..", dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		before := len(seen)
		for _, name := range files {
			f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(f, func(n ast.Node) bool {
				spec, ok := n.(*ast.ValueSpec)
				if !ok {
					return true
				}
				for i, id := range spec.Names {
					if !kind.MatchString(id.Name) || i >= len(spec.Values) {
						continue
					}
					lit, ok := spec.Values[i].(*ast.BasicLit)
					if !ok || lit.Kind != token.CHAR {
						continue
					}
					if other := seen[lit.Value]; other != "" {
						t.Errorf("rows of %s and of %s.%s begin with %s", other, dir, id.Name, lit.Value)
					}
					seen[lit.Value] = dir + "." + id.Name
				}
				return true
			})
		}
		if len(seen) == before {
			t.Errorf("no kinds found in %s", dir)
		}
	}
}
