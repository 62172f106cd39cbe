package daemon

import (
	"context"
	"time"

	"ashlar"
	"ashlar/daemon/meta/trash"
	"ashlar/daemon/orphan"
	"ashlar/daemon/piece"
	"ashlar/daemon/wire"
	"ashlar/placement/topology"
)

// reportEvery is how often a host says what became of its garbage.
const reportEvery = 15 * time.Second

// searchOrphans makes the search. It looks at nothing before the roll call
// hands stripes over, which is after the host was assembled.
func (h *Host) searchOrphans(pieces *piece.Store) *orphan.Search {
	return orphan.New(orphan.Config{
		Store: h.rows, Referee: h.referee,
		Shards: func() int { return len(h.place.Map().Shards) },
		Describe: func(ctx context.Context, disk ashlar.DiskID, id wire.PieceID) (wire.Piece, error) {
			return pieces.DescribePiece(ctx, wire.PieceRange{PieceID: id, Disk: disk, Epoch: h.place.Map().Epoch})
		},
		Delete: func(ctx context.Context, id ashlar.StripeID, code ashlar.Code) error {
			return h.coord.DeleteStripe(ctx, id, code)
		},
		Restored: func() topology.Restore { return h.place.Map().Restore },
		Grace:    time.Duration(h.cfg.OrphanGrace), Confirm: time.Duration(h.cfg.OrphanConfirm), Log: h.log,
	})
}

// reportGarbage writes what was freed and found to the metadata until run ends.
func (h *Host) reportGarbage(run context.Context, worker *trash.Worker) {
	r := orphan.Report{
		Host: h.id, Name: h.cfg.Name, Started: time.Now().UTC(), TrashGrace: time.Duration(h.cfg.TrashGrace),
		OrphanGrace: time.Duration(h.cfg.OrphanGrace), OrphanConfirm: time.Duration(h.cfg.OrphanConfirm),
		WalkPeriod: time.Duration(h.cfg.MissingPeriod),
	}
	var last orphan.Report
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	for {
		t, o, c := worker.Stats(), h.orphans.Stats(), h.roll.Stats()
		r.TrashRows, r.TrashBytes, r.TrashHeld = t.Rows, t.Bytes, t.Held
		r.Looked, r.Candidates, r.Freed, r.FreedBytes, r.Spared = o.Looked, o.Candidates, o.Freed, o.Bytes, o.Spared
		r.Kept, r.KeptBytes = o.Kept, o.KeptBytes
		r.Missing, r.LastWalk = c.Missing, c.LastFull.UTC()
		if r != last && h.place.Map().Formed() {
			next := r
			next.At = time.Now().UTC()
			ctx, cancel := context.WithTimeout(run, reportEvery)
			if err := next.Write(ctx, h.rows); err == nil { // a report that is lost is written again
				last = r
			}
			cancel()
		}
		select {
		case <-run.Done():
			return
		case <-tick.C:
		}
	}
}
