package backup

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"ashlar"
	"ashlar/daemon/client"
	"ashlar/daemon/meta"
	"ashlar/daemon/wire"
	"ashlar/placement/topology"
)

const (
	// importersMax bounds the transactions under way, importBytes and importRows
	// the size of one.
	importersMax = 8
	importBytes  = 1 * ashlar.MiB
	importRows   = 2000
)

// Import writes the rows of a stream into the shards of a cluster whose map was
// taken from it and that counts as importing. Writing the same stream again is
// safe. At the end it counts: every shard must hold as many rows as the stream.
// Rows get new versions: nobody knows the old ones any more.
func Import(ctx context.Context, c Cluster, in io.Reader) (Info, error) {
	// For us, and nobody else, the cluster is formed.
	if m := c.Maps(); m != nil {
		ctx = wire.WithImport(ctx, m.Restore.Run)
	}
	maps := func() *topology.Map {
		m := c.Maps()
		if m == nil || !m.Restore.Importing {
			return m
		}
		open := *m
		open.Restore.Importing = false
		return &open
	}
	im := &importer{store: client.NewMeta(maps, c.Dial), room: make(chan struct{}, importersMax)}
	im.ctx, im.cancel = context.WithCancelCause(ctx)
	defer im.cancel(nil)
	counts := map[ashlar.ShardID]uint64{}
	info, err := Read(in, Visitor{Rows: im.rows, End: func(shard ashlar.ShardID, n uint64) error {
		counts[shard] = n
		return nil
	}})
	im.wg.Wait()
	if cause := context.Cause(im.ctx); cause != nil {
		return info, cause
	}
	if err != nil {
		return info, err
	}
	for shard, want := range counts {
		if err := im.count(ctx, shard, want); err != nil {
			return info, err
		}
	}
	return info, nil
}

type importer struct {
	store  meta.Store
	ctx    context.Context
	cancel context.CancelCauseFunc
	room   chan struct{}
	wg     sync.WaitGroup
}

// rows cuts rows into transactions, some of which are under way at a time.
func (im *importer) rows(shard ashlar.ShardID, rows []meta.Row) error {
	for len(rows) > 0 {
		txn := &meta.Txn{ID: ashlar.RequestID(ashlar.NewID())}
		sum, n := 0, 0
		for n < len(rows) && n < importRows && sum < importBytes {
			txn.Puts = append(txn.Puts, meta.Put{Key: rows[n].Key, Value: rows[n].Value})
			sum += len(rows[n].Key) + len(rows[n].Value)
			n++
		}
		rows = rows[n:]
		select {
		case im.room <- struct{}{}:
		case <-im.ctx.Done():
			return context.Cause(im.ctx)
		}
		im.wg.Go(func() {
			defer func() { <-im.room }()
			if err := im.store.Commit(im.ctx, shard, txn); err != nil {
				im.cancel(ashlar.E("backup: import", fmt.Sprintf("shard=%d", shard), ashlar.KindOf(err), err))
			}
		})
	}
	return nil
}

func (im *importer) count(ctx context.Context, shard ashlar.ShardID, want uint64) error {
	var got uint64
	req := meta.ScanRequest{KeysOnly: true}
	for {
		page, err := im.store.Scan(ctx, shard, req)
		if err != nil {
			return err
		}
		got += uint64(len(page.Rows))
		if page.Next == nil {
			break
		}
		req.Start = page.Next
	}
	if got != want {
		return ashlar.E("backup: import", fmt.Sprintf("shard=%d", shard), ashlar.Corrupt,
			fmt.Errorf("%d rows where the backup has %d", got, want))
	}
	return nil
}

// Place is what a restore needs of the placement quorum.
type Place interface {
	Restore(ctx context.Context, backup, run ashlar.ID, created time.Time, m *topology.Map) error
	Restored(ctx context.Context, backup ashlar.ID) error
	Wait(ctx context.Context, ok func(*topology.Map) bool) (*topology.Map, error)
	Map() *topology.Map
}

// Restore brings a backup back into a cluster that has nothing: it reads the
// stream once to the end to check it, gives the map to the quorum, waits until
// the expected hosts have joined on their disks and the shards have replicas,
// writes the rows, and lets the cluster serve. Adopted, if set, is called when the
// quorum has the map: from then on hosts can start. A restore that was broken off
// is done again with the same stream. Kind Denied: the cluster is not empty.
func Restore(ctx context.Context, place Place, dial func(ashlar.HostID) (wire.Shards, error),
	open func() (io.ReadCloser, error), adopted func() error) (Info, error) {
	info, err := readAll(open, func(r io.Reader) (Info, error) { return Read(r, Visitor{}) })
	if err != nil {
		return info, err
	}
	if err := place.Restore(ctx, info.ID, ashlar.NewID(), info.Created, info.Map); err != nil {
		return info, err
	}
	if adopted != nil {
		if err := adopted(); err != nil {
			return info, err
		}
	}
	ours := func(m *topology.Map) bool { return m.Laid() && m.Restore.Backup == info.ID }
	if _, err := place.Wait(ctx, ours); err != nil {
		return info, err
	}
	if _, err := readAll(open, func(r io.Reader) (Info, error) {
		return Import(ctx, Cluster{Maps: place.Map, Dial: dial}, r)
	}); err != nil {
		return info, err
	}
	return info, place.Restored(ctx, info.ID)
}

func readAll(open func() (io.ReadCloser, error), read func(io.Reader) (Info, error)) (Info, error) {
	f, err := open()
	if err != nil {
		return Info{}, err
	}
	defer f.Close()
	return read(f)
}
