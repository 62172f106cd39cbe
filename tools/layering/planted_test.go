package layering

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const doc = `// Package x is planted by a test.
//
// Its comment has as many lines
// as the policy wants, so that
// only the planted rule is broken.
`

// plant writes a small tree and returns what Check finds in it.
func plant(t *testing.T, files map[string]string) []string {
	t.Helper()
	root := t.TempDir()
	for name, source := range files {
		full := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(source), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	found, err := Check(root)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, v := range found {
		all = append(all, v.String())
	}
	return all
}

func source(pkg string, lines ...string) string {
	return strings.TrimSpace(doc+"package "+pkg+"\n\n"+strings.Join(lines, "\n")) + "\n"
}

func imports(pkg, what string) string { return source(pkg, `import _ "`+what+`"`) }

func TestPlantedViolationsAreFound(t *testing.T) {
	for _, c := range []struct{ name, file, source, want string }{
		{"vocabulary and a library", "a.go", imports("ashlar", "github.com/x/y"), "a.go:8: . may import only the standard library"},
		{"vocabulary and a room", "a.go", imports("ashlar", "ashlar/ec"), "a.go:8: . may not import ec"},
		{"siblings", "segment/a.go", imports("segment", "ashlar/diskmgr/label"), "segment/a.go:8: segment may not import diskmgr/label"},
		{"siblings, the other way", "diskmgr/probe/a.go", imports("probe", "ashlar/segment"), "diskmgr/probe may not import segment"},
		{"a tag hides nothing", "segment/a.go", "//go:build plan9\n\n" + imports("segment", "ashlar/ec"), "segment/a.go:10: segment may not import ec"},
		{"a test is held to the rules", "segment/a_test.go", imports("segment", "ashlar/diskmgr"), "segment/a_test.go:8: segment may not import diskmgr"},
		{"coding and disks", "ec/a.go", imports("ec", "ashlar/segment"), "ec may not import segment"},
		{"placement and bytes", "placement/state/a.go", imports("state", "ashlar/ec"), "placement/state may not import ec"},
		{"daemon and placement's inside", "daemon/a.go", imports("daemon", "ashlar/placement/state"), "daemon may not import placement/state"},
		{"daemon and gateway", "daemon/piece/a.go", imports("piece", "ashlar/s3gw/store"), "daemon/piece may not import s3gw/store"},
		{"gateway and the daemon's inside", "s3gw/store/a.go", imports("store", "ashlar/daemon/stripe"), "s3gw/store may not import daemon/stripe"},
		{"gateway and the daemon", "s3gw/a.go", imports("s3gw", "ashlar/daemon"), "s3gw may not import daemon"},
		{"gateway and replicas", "s3gw/a.go", imports("s3gw", "ashlar/daemon/meta/replica"), "s3gw may not import daemon/meta/replica"},
		{"gateway and coding", "s3gw/s3/a.go", imports("s3", "ashlar/ec"), "s3gw/s3 may not import ec"},
		{"tools are the end", "daemon/a.go", imports("daemon", "ashlar/tools/dev"), "daemon may not import tools/dev"},
		{"bench is the end", "s3gw/a.go", imports("s3gw", "ashlar/bench"), "s3gw may not import bench"},
		{"bench is alone", "bench/a.go", imports("bench", "ashlar/daemon"), "bench may not import daemon"},
		{"notify is for mains", "daemon/piece/a.go", imports("piece", "ashlar/systemd/notify"), "daemon/piece may not import systemd/notify"},
		{"notify is plain", "systemd/notify/a.go", imports("notify", "ashlar"), "systemd/notify"},
		{"AGPL", "daemon/a.go", imports("daemon", "github.com/minio/pkg/v3/env"), "must not be linked: AGPL"},
		{"dead pebble", "daemon/a.go", imports("daemon", "github.com/cockroachdb/pebble/sstable"), "version 1 is dead"},
		{"cgo", "daemon/a.go", imports("daemon", "C"), "CGO_ENABLED=0"},
		{"SDK in production", "s3gw/a.go", imports("s3gw", "github.com/aws/aws-sdk-go-v2/aws"), "is for tests only"},
		{"clock in a pure room", "placement/state/a.go", source("state", `import clock "time"`, "", "var x = clock.Now()"), "placement/state/a.go:10: time.Now must not be used"},
		{"timer as a value", "ec/a.go", source("ec", `import "time"`, "", "var x = time.After"), "time.After must not be used"},
		{"chance in a pure room", "placement/layout/a.go", imports("layout", "math/rand/v2"), "math/rand/v2 must not be used"},
		{"files in a pure room", "segment/format/a.go", imports("format", "os"), "os must not be used"},
		{"mux", "s3gw/a.go", source("s3gw", `import "net/http"`, "", "var x http.ServeMux"), "net/http.ServeMux must not be used"},
		{"default mux", "s3gw/a.go", source("s3gw", `import "net/http"`, "", "var x = http.DefaultServeMux"), "net/http.DefaultServeMux"},
		{"global logger", "daemon/a.go", source("daemon", `import "log/slog"`, "", `func x() { slog.Info("x") }`), "log/slog.Info must not be used"},
		{"no room", "mystery/a.go", source("mystery"), "mystery: only the rooms"},
		{"stray file", "notes.txt", "x", "notes.txt: only the rooms"},
		{"short comment", "ec/a.go", "// Package ec is short.\npackage ec\n", "ec: the package comment has 1 lines"},
		{"no comment", "ec/a.go", "package ec\n", "ec: the package comment has 0 lines"},
		{"format", "ec/a.go", doc + "package ec\n\nvar  x = 1\n", "ec/a.go: is not formatted"},
		{"name", "daemon/util/a.go", source("util"), "a package must not be called util"},
		{"syntax", "ec/a.go", "package", "does not parse"},
	} {
		found := plant(t, map[string]string{c.file: c.source})
		if len(found) == 0 || !strings.Contains(strings.Join(found, "\n"), c.want) {
			t.Errorf("%s: found %q, want %q", c.name, found, c.want)
		}
	}
}

func TestCleanTreePasses(t *testing.T) {
	found := plant(t, map[string]string{
		"go.mod": "module ashlar\n", "README.md": "x", ".ci/run": "x", ".gitignore": "/ashlar\n/out/\n", "ashlar": "x", "out/a.go": "not Go",
		"a.go":                      imports("ashlar", "os"),
		"ec/a.go":                   source("ec", `import _ "ashlar"`, `import _ "github.com/klauspost/reedsolomon"`, `import _ "time"`),
		"ec/a_test.go":              "package ec\n\nimport _ \"os\"\n",
		"segment/simdev/a.go":       imports("simdev", "ashlar/segment"),
		"diskmgr/a.go":              imports("diskmgr", "ashlar/diskmgr/label"),
		"placement/a.go":            imports("placement", "ashlar/systemd/notify"),
		"placement/state/a.go":      source("state", `import "time"`, "", "var x time.Duration"),
		"daemon/a.go":               source("daemon", `import _ "ashlar/placement/topology"`, `import _ "ashlar/systemd/notify"`),
		"daemon/piece/a.go":         source("piece", `import _ "ashlar/segment"`, `import _ "github.com/cockroachdb/pebble/v2"`),
		"daemon/meta/metatest/a.go": source("metatest", `import _ "ashlar/daemon/meta"`, `import _ "testing"`),
		"s3gw/a.go":                 source("s3gw", `import _ "ashlar/daemon/meta/trash"`, `import "net/http"`, "", "var x http.Server"),
		"s3gw/a_test.go":            imports("s3gw", "github.com/aws/aws-sdk-go-v2/aws"),
		"s3gw/testdata/x.go":        "not Go at all",
		"systemd/notify/a.go":       imports("notify", "net"),
		"bench/a.go":                imports("bench", "github.com/spf13/cobra"),
		"tools/ashlar/a.go":         source("main", `import _ "ashlar/bench"`, `import _ "ashlar/s3gw"`, `import _ "ashlar/tools/dev"`),
		"daemon/wirepb/a.pb.go":     "// Code generated by x. DO NOT EDIT.\n\npackage   wirepb\n",
		"daemon/wirepb/doc.go":      source("wirepb"),
	})
	if len(found) > 0 {
		t.Errorf("a clean tree was refused:\n%s", strings.Join(found, "\n"))
	}
}

func TestBadPolicyIsRefused(t *testing.T) {
	for _, text := range []string{"ec\n", "[nonsense]\nx\n", "[imports]\nec segment\n", "[imports]\n < ec\n"} {
		if _, err := parsePolicy(text); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
}
