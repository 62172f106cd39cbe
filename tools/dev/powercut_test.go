package dev

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ashlar"
	"ashlar/placement/health"
	"ashlar/tools/dev/devtest"
	"ashlar/tools/faultdisk"
)

const (
	cutLoaders = 4
	// cutObjects are acknowledged before the power fails, so that the test depends
	// on no time; what is on its way then is not.
	cutObjects = 60
)

// powered is a cluster of three hosts with two real block devices each, whose
// power can be cut.
type powered struct {
	*testing.T
	cfg Config
	rig *faultdisk.Rig
	*Cluster
	round int
	acked []object
	// open are those that were not answered: whole or absent.
	open []object
}

func newPowered(t *testing.T, seed uint64) *powered {
	cfg := testConfig(t)
	cfg.Zones, cfg.Hosts, cfg.Disks, cfg.Members, cfg.Profile = 3, 1, 2, 1, ashlar.Code{K: 4, M: 2}
	p := &powered{T: t, rig: faultdisk.New(t, faultdisk.Options{Disks: 6, Bytes: 512 * ashlar.MiB, Seed: seed})}
	for i := range 6 {
		cfg.Devices = append(cfg.Devices, p.rig.Disk(i).Path())
	}
	p.cfg = cfg
	p.start()
	t.Cleanup(func() { p.Close() })
	makeBucket(t, s3Client(t, p.S3(), cfg))
	return p
}

func (p *powered) bringUp() {
	p.Helper()
	c, err := Start(context.Background(), p.cfg, Options{})
	if err != nil {
		p.Fatal(err)
	}
	p.Cluster = c
}

func (p *powered) start() {
	p.Helper()
	p.bringUp()
	devtest.AwaitHealthy(p, healBound, p.Status)
}

// load puts small objects from several callers; cut is called when enough are
// acknowledged, and each caller goes on until a PUT fails, or until enough are
// acknowledged again.
func (p *powered) load(cut func()) {
	p.Helper()
	p.round++
	client := s3Client(p, p.S3(), p.cfg)
	var mu sync.Mutex
	var n, done atomic.Int64
	var all sync.WaitGroup
	for range cutLoaders {
		all.Go(func() {
			for done.Load() < 2*cutObjects {
				seq := int(n.Add(1))
				o := object{fmt.Sprintf("cut/%d/%d", p.round, seq), seq, nil}
				o.b = content(9, o.key, seq, 1+seq*397%devSmallMax)
				ctx, end := context.WithTimeout(context.Background(), requestBound)
				err := put(ctx, client, o)
				end()
				mu.Lock()
				if err != nil {
					p.open = append(p.open, o)
				} else {
					p.acked = append(p.acked, o)
				}
				mu.Unlock()
				if err != nil {
					return
				}
				if done.Add(1) == cutObjects {
					cut()
				}
			}
		})
	}
	all.Wait()
}

// check reads all that was acknowledged, and decides what was not.
func (p *powered) check(when string) {
	p.Helper()
	client := s3Client(p, p.S3(), p.cfg)
	checkAll(p, client, p.acked, when)
	for _, o := range p.open {
		ctx, end := context.WithTimeout(context.Background(), requestBound)
		b, err := get(ctx, client, o.key, "")
		end()
		switch {
		case err == nil && !bytes.Equal(b, o.b):
			p.Errorf("%s: %s was not acknowledged and is neither whole nor absent", when, o.key)
		case err == nil:
			p.acked = append(p.acked, o) // once it was read it stays
		case status(err) != http.StatusNotFound:
			p.Errorf("%s: %s: %v", when, o.key, err)
		}
	}
	p.open = nil
}

func (p *powered) power(on bool, disks ...int) {
	for _, i := range disks {
		if on {
			p.rig.Disk(i).Clear()
			p.rig.Disk(i).PowerOn()
		} else {
			p.rig.Disk(i).PowerCut(512)
		}
	}
}

var allDisks = []int{0, 1, 2, 3, 4, 5}

// Fault 1: the power of one host fails under PUT load, with torn atoms. Small
// PUTs go on; the host is back within a minute, with all that it acknowledged.
func TestFault01PowerCutOfOneHost(t *testing.T) {
	p := newPowered(t, 1)
	const host = "a1" // has the first two devices
	p.load(func() { p.power(false, 0, 1) })
	if err := p.Fault(t.Context(), "kill-host", host); err != nil {
		t.Fatal(err)
	}
	p.check("with a host without power")
	p.power(true, 0, 1)
	began := time.Now()
	if err := p.Fault(t.Context(), "revive-host", host); err != nil {
		t.Fatal(err)
	}
	devtest.AwaitHealthy(t, healBound, p.Status)
	t.Logf("%d acknowledged; healthy %v after the power was back", len(p.acked), time.Since(began).Round(time.Millisecond))
	p.check("after it is back")
}

// Fault 2: the power of all disks fails at the same moment, under load, twice.
func TestFault02PowerCutOfAllHosts(t *testing.T) {
	p := newPowered(t, 2)
	for round := range 2 {
		p.load(func() { p.power(false, allDisks...) })
		p.Close()
		p.power(true, allDisks...)
		p.start()
		t.Logf("cut %d: %d acknowledged in all, %d not answered", round+1, len(p.acked), len(p.open))
		p.check(fmt.Sprintf("after cut %d of all", round+1))
	}
}

// Fault 15: all disks lie about their flushes, and the power fails. That is
// outside what is promised: objects are lost. They are errors, not wrong bytes and
// not absent; the others are served; and the cluster starts, twice, and takes more.
func TestFault15AllDisksLie(t *testing.T) {
	p := newPowered(t, 15)
	client := s3Client(t, p.S3(), p.cfg)
	kept := samples(15, "before")
	putAll(t, client, kept)
	for i := range allDisks {
		p.rig.Disk(i).Inject(faultdisk.Rule{Fault: faultdisk.Lie})
	}
	p.load(func() {})
	p.power(false, allDisks...)
	p.Close()
	p.power(true, allDisks...)
	for round := range 2 {
		p.bringUp()
		// A stripe that has lost more than its parity, and not all of it without a trace,
		// is never made again and stays in the queue of repair.
		awaitStatus(t, p.Cluster, func(st health.Status) bool { return st.Verdict == health.Healthy })
		client = s3Client(t, p.S3(), p.cfg)
		checkAll(t, client, kept, "of what was flushed before the disks lied")
		served, lost := 0, 0
		for _, o := range p.acked {
			ctx, end := context.WithTimeout(context.Background(), requestBound)
			b, err := get(ctx, client, o.key, "")
			switch {
			case errors.Is(ctx.Err(), context.DeadlineExceeded):
				t.Errorf("%s: no answer", o.key)
			case err == nil && !bytes.Equal(b, o.b):
				t.Errorf("%s: wrong bytes", o.key)
			case err == nil:
				served++
			case status(err) < http.StatusInternalServerError:
				t.Errorf("%s: %v, want a 5xx: it was acknowledged", o.key, err)
			default:
				lost++
			}
			end()
		}
		t.Logf("start %d: of %d objects that disks lied about %d are served, %d are errors", round+1, len(p.acked), served, lost)
		if lost == 0 {
			t.Error("nothing is lost by disks that lie: the test proves nothing")
		}
		more := samples(uint64(16+round), fmt.Sprintf("after/%d", round))
		putAll(t, client, more)
		kept = append(kept, more...)
		p.Close()
	}
}
