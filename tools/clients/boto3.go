package main

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

//go:embed boto3_checks.py
var boto3Program []byte

// pythonWithBoto3 returns the first Python that can import boto3.
func (s *suite) pythonWithBoto3() (string, error) {
	candidates := []string{"python3", "/usr/bin/python3"}
	if s.python != "" {
		candidates = []string{s.python}
	}
	for _, python := range candidates {
		if out, err := s.command(nil, python, "-c", "import boto3, sys; print('boto3', boto3.__version__, 'Python', sys.version.split()[0])"); err == nil {
			fmt.Fprintf(s.out, "# boto3: %s", out)
			return python, nil
		}
	}
	return "", errors.New("no Python has boto3: apt-get install python3-boto3")
}

// checkBoto3 runs the Python program, which prints a line for every check.
func (s *suite) checkBoto3() {
	python, err := s.pythonWithBoto3()
	if err != nil {
		s.check("is installed", err)
		return
	}
	program := filepath.Join(s.dir, "boto3_checks.py")
	if err := os.WriteFile(program, boto3Program, 0o600); err != nil {
		s.check("starts", err)
		return
	}
	ctx, cancel := context.WithTimeout(s.ctx, 2*commandTimeout)
	defer cancel()
	arguments := []string{"-u", "-W", "ignore", program, s.endpoint, s.bucket("b"), s.tree, s.dir}
	for _, f := range s.files {
		arguments = append(arguments, f.path)
	}
	c := s.start(ctx, nil, python, arguments...)
	var errs bytes.Buffer
	c.Stderr = &errs
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		s.check("starts", err)
		return
	}
	finished := false
	for lines := bufio.NewScanner(out); lines.Scan(); {
		line := lines.Text()
		name, failed := strings.CutPrefix(line, "FAILED ")
		if failed {
			name, reason, _ := strings.Cut(name, "\t")
			s.check(name, errors.New(reason))
		} else if name, ok := strings.CutPrefix(line, "ok "); ok {
			s.check(name, nil)
		}
		finished = finished || line == "finished"
	}
	if err := c.Wait(); err != nil || !finished {
		s.check("runs to its end", fmt.Errorf("%w: %s", errors.Join(err, errors.New("see above")), errs.String()))
	}
}
