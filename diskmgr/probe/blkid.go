package probe

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"os/exec"
	"strings"
	"time"
)

// blkidTimeout bounds one run of blkid: a device that hangs must not hang us.
const blkidTimeout = 10 * time.Second

// ambivalent is blkid's exit status for a device with several signatures.
const ambivalent = 8

// blkid asks util-linux what is on the device. It returns nothing where blkid is
// not installed, may not read the device, or knows nothing: it only ever adds.
func blkid(ctx context.Context, path string) []Signature {
	program := findBlkid()
	if program == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, blkidTimeout)
	defer cancel()
	// -p reads the device itself, past every cache.
	cmd := exec.CommandContext(ctx, program, "-p", "-o", "export", path)
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == ambivalent {
		return []Signature{{Type: "several signatures at once"}}
	}
	if err != nil {
		return nil
	}
	return parseBlkid(out)
}

// findBlkid also looks where the PATH of an ordinary user does not.
func findBlkid() string {
	for _, name := range []string{"blkid", "/usr/sbin/blkid", "/sbin/blkid"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

// parseBlkid reads KEY=value lines, in which a backslash guards the next byte.
func parseBlkid(out []byte) []Signature {
	var content, table Signature
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		key, value, _ := strings.Cut(lines.Text(), "=")
		switch key {
		case "TYPE":
			content.Type = unguard(value)
		case "LABEL":
			content.Name = unguard(value)
		case "PTTYPE":
			table.Type = unguard(value)
		}
	}
	var found []Signature
	if content.Type != "" {
		found = append(found, content)
	}
	if table.Type != "" && table.Type != "PMBR" {
		found = append(found, table)
	}
	return found
}

func unguard(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
