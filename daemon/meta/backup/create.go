package backup

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"ashlar"
	"ashlar/daemon/meta"
	"ashlar/daemon/wire"
	"ashlar/placement/topology"
)

const (
	// freezeHold is how long a shard waits at most for the others.
	freezeHold = 3 * time.Second
	// pinRounds is how often the moment is tried for; between two rounds leaders
	// have time to settle.
	pinRounds = 10
	pinPause  = 500 * time.Millisecond
	// callMax bounds one call to one host.
	callMax = 10 * time.Second
)

// Cluster is how the shards are reached.
type Cluster struct {
	// Maps returns the newest map, Dial the Shards of a host.
	Maps func() *topology.Map
	Dial func(ashlar.HostID) (wire.Shards, error)
}

// Create writes a backup of all shards as of one moment.
func Create(ctx context.Context, c Cluster, out io.Writer) (Info, error) {
	m := c.Maps()
	if !m.Formed() {
		return Info{}, ashlar.E("backup: create", "", ashlar.Unavailable, errors.New("the cluster is not formed"))
	}
	info := Info{ID: ashlar.NewID(), Shards: len(m.Shards), Map: m.Clone()}
	info.Map.Restore = topology.Restore{}
	t := &taking{c: c, m: m, token: ashlar.RequestID(ashlar.NewID()), at: make([]ashlar.HostID, len(m.Shards)), index: make([]uint64, len(m.Shards))}
	defer t.release()
	if err := t.moment(ctx); err != nil {
		return info, ashlar.E("backup: create", "", ashlar.KindOf(err), err)
	}
	info.Created = t.created
	w := newWriter(out)
	if err := w.begin(info); err != nil {
		return info, err
	}
	for shard := range info.Shards {
		n, err := t.export(ctx, ashlar.ShardID(shard), w)
		if err != nil {
			return info, ashlar.E("backup: create", fmt.Sprintf("shard=%d", shard), ashlar.KindOf(err), err)
		}
		info.Rows += n
	}
	return info, w.end(info.Rows)
}

// taking is a backup in the making.
type taking struct {
	c       Cluster
	m       *topology.Map
	token   ashlar.RequestID
	at      []ashlar.HostID // who leads each shard
	index   []uint64        // as of which its state is kept
	created time.Time
}

// moment freezes all shards, keeps their states, and thaws them.
func (t *taking) moment(ctx context.Context) error {
	var last error
	for range pinRounds {
		err := t.each(ctx, t.freeze)
		if err == nil {
			t.created = time.Now().UTC().Round(0)
			err = t.each(ctx, t.pin)
		}
		thaw, cancel := context.WithTimeout(context.WithoutCancel(ctx), callMax)
		_ = t.each(thaw, t.step(wire.BackupThaw)) // those that it does not reach thaw by themselves
		cancel()
		if err == nil {
			return nil
		}
		last = err
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), last)
		case <-time.After(pinPause):
		}
		t.m = t.c.Maps()
	}
	return last
}

// each runs do for all shards at once.
func (t *taking) each(ctx context.Context, do func(context.Context, ashlar.ShardID) error) error {
	errs := make([]error, len(t.at))
	var wg sync.WaitGroup
	for i := range t.at {
		wg.Go(func() { errs[i] = do(ctx, ashlar.ShardID(i)) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (t *taking) call(ctx context.Context, host ashlar.HostID, req wire.BackupRequest) (wire.BackupReply, error) {
	s, err := t.c.Dial(host)
	if err != nil {
		return wire.BackupReply{}, err
	}
	b, ok := s.(wire.Backups)
	if !ok {
		return wire.BackupReply{}, ashlar.E("backup", "", ashlar.Internal, fmt.Errorf("host %v offers no backups", host))
	}
	req.Token = t.token
	ctx, cancel := context.WithTimeout(ctx, callMax)
	defer cancel()
	return b.Backup(ctx, req)
}

// freeze asks the replicas of a shard until its leader has frozen it.
func (t *taking) freeze(ctx context.Context, shard ashlar.ShardID) error {
	var last error
	for _, r := range t.m.Shards[shard].All() {
		_, err := t.call(ctx, r.Host, wire.BackupRequest{Shard: shard, Step: wire.BackupFreeze, Hold: freezeHold})
		if err == nil {
			t.at[shard] = r.Host
			return nil
		}
		last = err
	}
	return fmt.Errorf("shard %d: %w", shard, last)
}

func (t *taking) pin(ctx context.Context, shard ashlar.ShardID) error {
	reply, err := t.call(ctx, t.at[shard], wire.BackupRequest{Shard: shard, Step: wire.BackupPin})
	t.index[shard] = reply.Index
	return err
}

// step is a call to the host that was frozen, if one was.
func (t *taking) step(s wire.BackupStep) func(context.Context, ashlar.ShardID) error {
	return func(ctx context.Context, shard ashlar.ShardID) error {
		if t.at[shard] == 0 {
			return nil
		}
		_, err := t.call(ctx, t.at[shard], wire.BackupRequest{Shard: shard, Step: s})
		return err
	}
}

func (t *taking) release() {
	ctx, cancel := context.WithTimeout(context.Background(), callMax)
	defer cancel()
	_ = t.each(ctx, t.step(wire.BackupRelease)) // what is not reached is forgotten after a while
}

// export copies the kept state of a shard.
func (t *taking) export(ctx context.Context, shard ashlar.ShardID, w *writer) (n uint64, err error) {
	head := binary.LittleEndian.AppendUint32(nil, uint32(shard))
	if err := w.frame(frameShard, binary.LittleEndian.AppendUint64(head, t.index[shard])); err != nil {
		return 0, err
	}
	var page meta.ScanPage
	for start := []byte(nil); ; start = page.Next {
		reply, err := t.call(ctx, t.at[shard], wire.BackupRequest{Shard: shard, Step: wire.BackupExport, Start: start})
		if err != nil {
			return n, err
		}
		if page = reply.Page; len(page.Rows) > 0 {
			n += uint64(len(page.Rows))
			if err := w.rows(page.Rows); err != nil {
				return n, err
			}
		}
		if page.Next == nil {
			return n, w.frame(frameEnd, binary.LittleEndian.AppendUint64(head, n))
		}
	}
}
