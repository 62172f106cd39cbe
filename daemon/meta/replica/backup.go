package replica

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"ashlar"
	"ashlar/daemon/meta"
	"ashlar/daemon/wire"
)

const (
	// freezeMax bounds the time for which a backup may stop transactions.
	freezeMax = 5 * time.Second
	// pinIdleMax is how long a pinned state is kept without being asked for.
	pinIdleMax = 2 * time.Minute
	// pinsMax bounds the pinned states of a host.
	pinsMax = 1024
)

// freeze is the part of a backup that the core knows of a shard.
type freeze struct {
	token ashlar.RequestID
	term  uint64
	until time.Time
}

func (f *freeze) holds(now time.Time) bool { return now.Before(f.until) }

// pins are the states that backups read.
type pins struct {
	sync.Mutex
	byKey  map[pinKey]*pin
	closed bool
}

type pinKey struct {
	token ashlar.RequestID
	shard ashlar.ShardID
}

type pin struct {
	mu     sync.Mutex // held while it is read or closed
	snap   *pebble.Snapshot
	prefix []byte
	used   time.Time
}

var _ wire.Backups = (*Host)(nil)

// Backup implements wire.Backups.
func (h *Host) Backup(ctx context.Context, req wire.BackupRequest) (reply wire.BackupReply, err error) {
	const op = "meta: backup"
	switch req.Step {
	case wire.BackupFreeze, wire.BackupThaw:
		r, err := h.leader(ctx, op, req.Shard)
		if err != nil {
			return reply, err
		}
		return reply, h.onCore(ctx, op, r, func(*core) error { return r.setFreeze(req) })
	case wire.BackupPin:
		// The read index says that we lead now; the freeze, that nobody led since.
		r, err := h.readable(ctx, op, req.Shard)
		if err != nil {
			return reply, err
		}
		err = h.onCore(ctx, op, r, func(*core) (err error) {
			reply.Index, err = h.pinState(r, req)
			return err
		})
		return reply, err
	case wire.BackupExport:
		reply.Page, err = h.exportPinned(ctx, req)
		return reply, err
	case wire.BackupRelease:
		h.pins.drop(func(k pinKey, _ *pin) bool { return k == pinKey{req.Token, req.Shard} })
		return reply, nil
	}
	return reply, ashlar.E(op, "", ashlar.Invalid, errors.New("an unknown step"))
}

// onCore runs do on the core goroutine and returns its error.
func (h *Host) onCore(ctx context.Context, op string, r *replica, do func(*core) error) error {
	ch := make(chan error, 1)
	if !h.events.put(eventsMax, event{kind: eventCall, call: func(c *core) { ch <- do(c) }}) {
		return ashlar.E(op, r.String(), ashlar.Busy, nil)
	}
	return h.wait(ctx, op, r, ch)
}

func (r *replica) setFreeze(req wire.BackupRequest) error {
	f, now := &r.core.frozen, time.Now()
	switch {
	case req.Step == wire.BackupThaw:
		if f.token == req.Token {
			*f = freeze{}
		}
		return nil
	case !r.leading.Load():
		return r.notLeader()
	case f.holds(now) && f.token != req.Token:
		return ashlar.E("meta: backup", r.String(), ashlar.Busy, errors.New("another backup is under way"))
	}
	*f = freeze{token: req.Token, term: r.core.term, until: now.Add(min(req.Hold, freezeMax))}
	return nil
}

// pinState keeps the state of this moment, if no transaction can have come in
// since the shard was frozen.
func (h *Host) pinState(r *replica, req wire.BackupRequest) (uint64, error) {
	stale := func(why string) (uint64, error) {
		return 0, ashlar.E("meta: backup", r.String(), ashlar.Stale, errors.New(why))
	}
	f := &r.core.frozen
	if f.token != req.Token || !f.holds(time.Now()) {
		return stale("the shard is not frozen any more")
	}
	if !r.leading.Load() || r.core.term != f.term {
		return stale("the leadership changed")
	}
	snap := h.db.NewSnapshot()
	raw, closer, err := snap.Get(replicaKey(kindApplied, r.id))
	if err != nil {
		return 0, errors.Join(err, snap.Close())
	}
	state, err := decodeAppliedState(raw)
	closer.Close()
	if err != nil {
		return 0, errors.Join(err, snap.Close())
	}
	p := &pin{snap: snap, prefix: append(machinePrefix(r.id, state.generation), partRows), used: time.Now()}
	if !h.pins.add(pinKey{req.Token, req.Shard}, p) {
		return 0, errors.Join(ashlar.E("meta: backup", r.String(), ashlar.Busy, nil), snap.Close())
	}
	return state.index, nil
}

// exportPinned returns a page of rows of the pinned state.
func (h *Host) exportPinned(ctx context.Context, req wire.BackupRequest) (meta.ScanPage, error) {
	const op = "meta: backup"
	if err := h.pin(op); err != nil {
		return meta.ScanPage{}, err
	}
	defer h.readers.RUnlock()
	p := h.pins.get(pinKey{req.Token, req.Shard})
	if p == nil {
		return meta.ScanPage{}, ashlar.E(op, "", ashlar.Stale, errors.New("the pinned state is gone: start the backup again"))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.snap == nil {
		return meta.ScanPage{}, ashlar.E(op, "", ashlar.Stale, errors.New("the pinned state is gone: start the backup again"))
	}
	it, err := p.snap.NewIter(&pebble.IterOptions{
		LowerBound: append(bytes.Clone(p.prefix), req.Start...), UpperBound: successor(p.prefix),
	})
	if err != nil {
		return meta.ScanPage{}, ashlar.E(op, "", ashlar.Internal, err)
	}
	defer it.Close()
	s := scan{it: it, req: &meta.ScanRequest{}, prefix: p.prefix}
	if err := s.run(ctx); err != nil {
		return meta.ScanPage{}, ashlar.E(op, "", ashlar.KindOf(err), err)
	}
	return s.page, nil
}

func (p *pins) add(key pinKey, one *pin) bool {
	p.drop(func(k pinKey, old *pin) bool { return k == key || time.Since(old.used) > pinIdleMax })
	p.Lock()
	defer p.Unlock()
	if p.closed || len(p.byKey) >= pinsMax {
		return false
	}
	if p.byKey == nil {
		p.byKey = map[pinKey]*pin{}
	}
	p.byKey[key] = one
	return true
}

func (p *pins) get(key pinKey) *pin {
	p.Lock()
	defer p.Unlock()
	one := p.byKey[key]
	if one != nil {
		one.used = time.Now()
	}
	return one
}

// drop closes the pinned states that which selects.
func (p *pins) drop(which func(pinKey, *pin) bool) {
	p.Lock()
	var gone []*pin
	for k, one := range p.byKey {
		if which(k, one) {
			gone = append(gone, one)
			delete(p.byKey, k)
		}
	}
	p.Unlock()
	for _, one := range gone {
		one.mu.Lock()
		_ = one.snap.Close() // it only lets go
		one.snap = nil
		one.mu.Unlock()
	}
}

// close drops all of them, before the store closes.
func (p *pins) close() {
	p.Lock()
	p.closed = true
	p.Unlock()
	p.drop(func(pinKey, *pin) bool { return true })
}
