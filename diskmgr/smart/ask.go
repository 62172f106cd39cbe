package smart

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"time"

	"ashlar"
)

// askTimeout bounds one smartctl: a disk that hangs must not keep the others.
const askTimeout = 30 * time.Second

// Tool finds smartctl, which on Debian is outside the path of services; kind
// NotFound if it is not installed.
func Tool() (string, error) {
	for _, name := range []string{"smartctl", "/usr/sbin/smartctl", "/usr/local/sbin/smartctl"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", ashlar.E("smart: find smartctl", "", ashlar.NotFound, errors.New("install the package smartmontools"))
}

// Ask asks the disk at a device node by way of the tool. Kinds as of Parse, and
// Unavailable if the tool cannot be run or does not end.
func Ask(ctx context.Context, tool, device string) (Facts, error) {
	const op = "smart: ask"
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, tool, "--json", "--all", device)
	cmd.WaitDelay = time.Second
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		return Facts{}, ashlar.E(op, device, ashlar.Unavailable, errors.Join(err, ctx.Err()))
	}
	f, err := Parse(out) // the exit status is in it
	if err != nil {
		return Facts{}, ashlar.E(op, device, ashlar.KindOf(err), err)
	}
	f.Taken = time.Now().UTC()
	return f, nil
}
