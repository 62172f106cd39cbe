package blockdev_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"ashlar"
	"ashlar/diskmgr/blockdev"
	"ashlar/diskmgr/blockdev/looptest"
)

// BenchmarkDevice measures one caller on a file and on a loop device over a file
// that was written through once. Wall time is the machine's affair; cpu-ns/op is
// that of this process.
func BenchmarkDevice(b *testing.B) {
	const bytes = 64 * ashlar.MiB
	for _, kind := range []string{"file", "loop"} {
		path := b.TempDir() + "/disk"
		if err := blockdev.Create(path, bytes, false); err != nil {
			b.Fatal(err)
		}
		if kind == "loop" {
			path = looptest.Attach(b, path, 4096)
		}
		d, err := blockdev.Open(path)
		if err != nil {
			b.Fatal(err)
		}
		defer d.Close()
		fill := blockdev.Aligned(ashlar.MiB)
		for off := int64(0); off < bytes; off += int64(len(fill)) {
			if _, err := d.WriteAt(fill, off); err != nil {
				b.Fatal(err)
			}
		}
		if err := d.Flush(); err != nil {
			b.Fatal(err)
		}
		for _, n := range []int{4096, 64 * ashlar.KiB, ashlar.MiB} {
			buf := blockdev.Aligned(n)
			run := func(name string, call func(off int64) error) {
				b.Run(fmt.Sprintf("%s/%s/%dK", kind, name, n>>10), func(b *testing.B) {
					b.SetBytes(int64(n))
					before := cpu(b)
					for i := range b.N {
						if err := call(int64(i) * int64(n) % bytes); err != nil {
							b.Fatal(err)
						}
					}
					b.ReportMetric(float64(cpu(b)-before)/float64(b.N), "cpu-ns/op")
				})
			}
			run("write", func(off int64) error { _, err := d.WriteAt(buf, off); return err })
			run("read", func(off int64) error { _, err := d.ReadAt(buf, off); return err })
			run("write+flush", func(off int64) error {
				if _, err := d.WriteAt(buf, off); err != nil {
					return err
				}
				return d.Flush()
			})
		}
	}
}

// BenchmarkEngines measures both engines at the depths of a daemon (one writer
// that flushes, few readers) and beyond, on a loop device over a file that was
// written through once. cpu-ns/op is the whole process, its kernel workers
// included.
func BenchmarkEngines(b *testing.B) {
	const bytes = 64 * ashlar.MiB
	path := b.TempDir() + "/disk"
	if err := blockdev.Create(path, bytes, false); err != nil {
		b.Fatal(err)
	}
	path = looptest.Attach(b, path, 4096)
	for _, engine := range []blockdev.Engine{blockdev.EnginePread, blockdev.EngineUring} {
		if engine == blockdev.EngineUring {
			needUring(b)
		}
		for _, n := range []int{4096, 64 * ashlar.KiB, ashlar.MiB} {
			for _, depth := range []int{1, 4, 16, 64} {
				if n*depth > 16*ashlar.MiB {
					continue
				}
				for _, op := range []string{"write", "read", "write+flush"} {
					b.Run(fmt.Sprintf("%s/%s/%dK/depth=%d", engine, op, n>>10, depth), func(b *testing.B) {
						d, err := blockdev.OpenWith(path, blockdev.Options{Engine: engine})
						if err != nil {
							b.Fatal(err)
						}
						defer d.Close()
						deep(b, d, op, n, depth)
					})
				}
			}
		}
	}
}

// deep does b.N operations from that many callers.
func deep(b *testing.B, d *blockdev.Device, op string, n, depth int) {
	b.SetBytes(int64(n))
	var next atomic.Int64
	var all sync.WaitGroup
	before := cpu(b)
	for range depth {
		all.Go(func() {
			buf := blockdev.Aligned(n)
			for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
				var err error
				off := i * int64(n) % d.Bytes()
				if op == "read" {
					_, err = d.ReadAt(buf, off)
				} else {
					_, err = d.WriteAt(buf, off)
				}
				if err == nil && op == "write+flush" {
					err = d.Flush()
				}
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	b.ReportMetric(float64(cpu(b)-before)/float64(b.N), "cpu-ns/op")
}

// cpu is the processor time of this process so far, in nanoseconds.
func cpu(b *testing.B) int64 {
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return r.Utime.Nano() + r.Stime.Nano()
}
