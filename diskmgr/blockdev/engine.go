package blockdev

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"ashlar"
)

// Engine names the way in which bytes get to a device and back.
type Engine string

const (
	// EngineAuto is the one that costs less at the depth which a daemon has; the
	// package comment has the figures.
	EngineAuto Engine = "auto"
	// EnginePread is one system call for each I/O, made by the caller's thread.
	EnginePread Engine = "pread"
	// EngineUring is an io_uring for each device, with a thread of its own.
	EngineUring Engine = "uring"
)

// Options say how to open a device. The zero value is fine.
type Options struct {
	// Engine is EngineAuto if empty. A device whose ring the kernel refuses is
	// served by pread: Device.Engine tells which it has become.
	Engine Engine
	// Pool, if set, is registered with the ring: I/O on its buffers saves
	// looking up their pages. It must outlive the device.
	Pool *Pool
}

// Choose returns the engine that will serve when want is asked for, and, where
// that is not want, why. It asks the kernel for a ring and lets it go again.
// Kind Invalid for a name that it does not know.
func Choose(want Engine) (use Engine, why error, err error) {
	switch want {
	case EngineAuto, EnginePread, "":
		return EnginePread, nil, nil
	case EngineUring:
		if why := probeUring(); why != nil {
			return EnginePread, why, nil
		}
		return EngineUring, nil, nil
	default:
		return "", nil, ashlar.E("blockdev: engine", string(want), ashlar.Invalid, fmt.Errorf("want %s, %s or %s", EngineAuto, EnginePread, EngineUring))
	}
}

// engine moves bytes between memory and one open device. All of p is moved, or
// there is an error; interrupted and short calls are its affair. Errors are bare
// causes. After close began, calls fail with os.ErrClosed.
type engine interface {
	readAt(p []byte, off int64) (int, error)
	writeAt(p []byte, off int64) (int, error)
	flush() error
	// close refuses new calls and waits a bounded time for those under way.
	close()
	name() Engine
}

// newEngine returns the engine for an open device.
func newEngine(file *os.File, o Options) engine {
	if o.Engine == EngineUring {
		if u, err := newUring(file, o.Pool); err == nil {
			return u
		}
	}
	return &pread{file}
}

// pread is the engine of plain system calls. The file's own count of users
// keeps it open until the last call has returned.
type pread struct{ file *os.File }

func (e *pread) readAt(p []byte, off int64) (int, error)  { return e.file.ReadAt(p, off) }
func (e *pread) writeAt(p []byte, off int64) (int, error) { return e.file.WriteAt(p, off) }
func (e *pread) flush() error                             { return control(e.file, unix.Fdatasync) }
func (e *pread) close()                                   {}
func (e *pread) name() Engine                             { return EnginePread }
