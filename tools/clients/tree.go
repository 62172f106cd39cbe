package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"

	"ashlar"
)

// oddNames are file names that have broken object stores.
var oddNames = []string{
	"with space.txt", "plus+sign", "percent%41.txt", "amp&ersand=1?", "ümlaut-naïve.txt", "日本語.txt", "emoji-🪨.bin",
	"quote'\"s", "semi;colon,comma", "[brackets](round){curly}", "tilde~hash#at@", ".hidden", "..two-dots", "-dash", "star*",
	"<angle>", "dollar$", "caret^", "pipe|", "back`tick",
}

// makeTree writes a tree like that of a program's source: many small files in
// nested folders, some empty, some with odd names, one that needs several parts.
func makeTree(root string, files int) error {
	rng := rand.New(rand.NewPCG(2, uint64(files)))
	write := func(name string, size int) error {
		full := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			return err
		}
		content := make([]byte, size)
		for i := range content {
			content[i] = byte(rng.Uint32())
		}
		return os.WriteFile(full, content, 0o644)
	}
	for _, name := range oddNames {
		if err := write(filepath.Join("odd names", name), len(name)); err != nil {
			return err
		}
	}
	if err := write("large.bin", 17*ashlar.MiB+1); err != nil {
		return err
	}
	for i := len(oddNames) + 1; i < files; i++ {
		name := fmt.Sprintf("room-%d/pkg-%02d/file_%04d.go", i%7, i%41, i)
		if i%10 == 0 {
			name = fmt.Sprintf("room-%d/file_%04d.go", i%7, i)
		}
		size := rng.IntN(8 * ashlar.KiB)
		if i%50 == 0 {
			size = 0
		}
		if err := write(name, size); err != nil {
			return err
		}
	}
	return nil
}

// readTree returns the content of every file by its path below root.
func readTree(root string) (map[string][]byte, error) {
	all := map[string][]byte{}
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		all[name], err = os.ReadFile(path)
		return err
	})
	return all, err
}

// sameTrees compares two trees, names and bytes.
func sameTrees(left, right string) error {
	a, err := readTree(left)
	if err != nil {
		return err
	}
	b, err := readTree(right)
	if err != nil {
		return err
	}
	if len(a) != len(b) {
		return fmt.Errorf("%d files went in, %d came back", len(a), len(b))
	}
	for name, content := range a {
		other, ok := b[name]
		if !ok || !bytes.Equal(content, other) {
			return fmt.Errorf("%q: %d bytes went in, %d came back (there: %v)", name, len(content), len(other), ok)
		}
	}
	return nil
}
