package layering

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	sourceLine  = regexp.MustCompile(`(?m)^// source: (.+)$`)
	packageLine = regexp.MustCompile(`(?m)^option go_package = "ashlar/([^";]+)`)
	// versionLine is the only line that another protoc of the same language changes.
	versionLine = regexp.MustCompile(`(?m)^//\s+-?\s*protoc\s.*\n`)
)

// TestGeneratedCodeIsReproducible runs protoc on every .proto file and compares
// with what is committed, file by file.
func TestGeneratedCodeIsReproducible(t *testing.T) {
	if _, err := exec.LookPath("protoc"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("protoc is not installed (package protobuf-compiler)")
		}
		t.Skip("protoc is not installed: install the package protobuf-compiler to compare the generated code with its source")
	}
	plugins := []string{"--plugin=" + tool(t, "protoc-gen-go"), "--plugin=" + tool(t, "protoc-gen-go-grpc")}
	protos := 0
	committed, made := map[string]bool{}, map[string]bool{}
	err := filepath.WalkDir(tree, func(file string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && strings.HasPrefix(e.Name(), ".") && file != tree:
			return fs.SkipDir
		case strings.HasSuffix(file, ".pb.go"):
			committed[filepath.Clean(file)] = true
		case filepath.Ext(file) == ".proto":
			protos++
			for _, name := range reproduce(t, file, plugins) {
				made[name] = true
			}
		}
		return nil
	})
	if err != nil || protos == 0 {
		t.Fatalf("%d .proto files, %v", protos, err)
	}
	for name := range committed {
		if !made[name] {
			t.Errorf("%s is made by no .proto file", name)
		}
	}
}

// reproduce generates one .proto file anew and returns the committed files that it makes.
func reproduce(t *testing.T, proto string, plugins []string) (made []string) {
	text, err := os.ReadFile(proto)
	if err != nil {
		t.Fatal(err)
	}
	m := packageLine.FindSubmatch(text)
	if m == nil {
		t.Errorf("%s: no go_package of this module", proto)
		return nil
	}
	folder := filepath.Join(tree, string(m[1]))
	base := strings.TrimSuffix(filepath.Base(proto), ".proto")
	first, err := os.ReadFile(filepath.Join(folder, base+".pb.go"))
	if err != nil {
		t.Errorf("%s: its code is not there: %v", proto, err)
		return nil
	}
	// The name under which it was compiled is part of the result.
	source := string(sourceLine.FindSubmatch(first)[1])
	root := strings.TrimSuffix(filepath.ToSlash(filepath.Clean(proto)), source)
	out := t.TempDir()
	arguments := append([]string{"-I", root, "--go_out=" + out, "--go_opt=module=ashlar", "--go-grpc_out=" + out, "--go-grpc_opt=module=ashlar"}, plugins...)
	if text, err := exec.Command("protoc", append(arguments, source)...).CombinedOutput(); err != nil {
		t.Errorf("protoc %s: %v\n%s", proto, err, text)
		return nil
	}
	err = filepath.WalkDir(out, func(file string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		name := filepath.Join(folder, e.Name())
		made = append(made, name)
		want, _ := os.ReadFile(file)
		got, err := os.ReadFile(name)
		if err != nil || !bytes.Equal(versionLine.ReplaceAll(got, nil), versionLine.ReplaceAll(want, nil)) {
			t.Errorf("%s is not what %s generates: run go generate (%v)", name, proto, err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return made
}

// tool builds one of the module's tools and returns where it is.
func tool(t *testing.T, name string) string {
	t.Helper()
	command := exec.Command("go", "tool", "-n", name)
	command.Dir = tree
	out, err := command.Output()
	if err != nil {
		t.Fatalf("go tool %s: %v", name, err)
	}
	return strings.TrimSpace(string(out))
}
