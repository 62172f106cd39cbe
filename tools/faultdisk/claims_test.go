package faultdisk_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// faults are those of our list that concern one disk, by number.
var faults = map[int]string{
	1: "power cut of one host under PUT load", 2: "power cut of all hosts at one instant", 3: "power cut again and again",
	5: "cut at every write of format, superblock, seal and roll", 6: "torn record at a segment's tail", 7: "one EIO on write",
	8: "EIO on flush", 9: "latent sector error", 10: "bit rot", 11: "flip on the way", 15: "all disks lie about flushes",
	16: "disk dead under load", 17: "disk hangs for ever", 18: "fail-slow disk", 20: "new blank disk in the slot",
	21: "foreign disk", 22: "names shuffled, disks swapped", 29: "disk full", 30: "read-only disk", 31: "SMART failing",
	32: "index damaged or gone",
}

var claim = regexp.MustCompile(`[Ff]ault ?0*([0-9]+)`)

// claims returns the tests below root by the numbers that their names or comments claim.
func claims(t *testing.T, root string) map[int][]string {
	t.Helper()
	found := map[int][]string{}
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() && strings.HasPrefix(e.Name(), ".") && path != root {
			return fs.SkipDir
		}
		if e.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || !strings.HasPrefix(f.Name.Name, "Test") {
				continue
			}
			for _, m := range claim.FindAllStringSubmatch(f.Name.Name+" "+f.Doc.Text(), -1) {
				n, err := strconv.Atoi(m[1])
				if name := filepath.Base(filepath.Dir(path)) + "." + f.Name.Name; err == nil && !slices.Contains(found[n], name) {
					found[n] = append(found[n], name)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestEveryFaultOfOneDiskHasATest: some test claims each number, in its name or
// its comment. Run it with -v for the list.
func TestEveryFaultOfOneDiskHasATest(t *testing.T) {
	found := claims(t, "../..")
	var numbers []int
	for n := range faults {
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	var table strings.Builder
	for _, n := range numbers {
		slices.Sort(found[n])
		fmt.Fprintf(&table, "%3d  %-52s %s\n", n, faults[n], strings.Join(found[n], ", "))
		if len(found[n]) == 0 {
			t.Errorf("no test claims fault %d, %s", n, faults[n])
		}
	}
	t.Log("\n" + table.String())
}
