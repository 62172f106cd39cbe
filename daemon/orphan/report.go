package orphan

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	"ashlar"
	"ashlar/daemon/meta"
)

// KindReport is the first byte of the key of a report: 'g', host id
// (4, big-endian), on shard 0. The value is JSON with a version. Lost reports are
// written again.
const KindReport = 'g'

const reportVersion = 1

// Report is what one host says of its garbage. Times are those of its clock.
type Report struct {
	Version int           `json:"version"`
	Host    ashlar.HostID `json:"host"`
	Name    string        `json:"name"`
	At      time.Time     `json:"at"`
	// Started is when the counters were zero.
	Started time.Time `json:"started"`
	// TrashGrace is how long trash lies, OrphanGrace and OrphanConfirm what Config
	// says, WalkPeriod the time in which every stripe is looked at once.
	TrashGrace    time.Duration `json:"trash_grace_ns"`
	OrphanGrace   time.Duration `json:"orphan_grace_ns"`
	OrphanConfirm time.Duration `json:"orphan_confirm_ns"`
	WalkPeriod    time.Duration `json:"walk_period_ns"`
	// LastWalk is when the last walk ended; zero: never.
	LastWalk time.Time `json:"last_walk"`
	// What was freed of the trash, and entries that were held because something
	// referred to them.
	TrashRows  uint64 `json:"trash_rows_freed"`
	TrashBytes uint64 `json:"trash_bytes_freed"`
	TrashHeld  uint64 `json:"trash_held"`
	// Orphans.
	Looked     uint64 `json:"stripes_looked_at"`
	Candidates uint64 `json:"orphan_candidates"`
	Freed      uint64 `json:"orphans_freed"`
	FreedBytes uint64 `json:"orphan_bytes_freed"`
	Spared     uint64 `json:"orphans_spared"`
	// Kept have no row and are newer than the backup that the cluster was restored from.
	Kept      uint64 `json:"newer_than_backup"`
	KeptBytes uint64 `json:"newer_than_backup_bytes"`
	// Missing pieces that the roll call found.
	Missing uint64 `json:"pieces_found_missing"`
}

func reportKey(host ashlar.HostID) []byte {
	return binary.BigEndian.AppendUint32([]byte{KindReport}, uint32(host))
}

// Write puts the report in the place of the host's last one.
func (r Report) Write(ctx context.Context, store meta.Store) error {
	r.Version = reportVersion
	value, err := json.Marshal(r)
	if err != nil {
		return ashlar.E("orphan: report", r.Name, ashlar.Internal, err)
	}
	return store.Commit(ctx, 0, &meta.Txn{
		ID: ashlar.RequestID(ashlar.NewID()), Puts: []meta.Put{{Key: reportKey(r.Host), Value: value}},
	})
}

// Reports returns the reports of all hosts.
func Reports(ctx context.Context, store meta.Store) ([]Report, error) {
	var all []Report
	start := []byte{KindReport}
	for start != nil {
		page, err := store.Scan(ctx, 0, meta.ScanRequest{Start: start, End: []byte{KindReport + 1}})
		if err != nil {
			return nil, err
		}
		for _, row := range page.Rows {
			var r Report
			if err := json.Unmarshal(row.Value, &r); err != nil {
				return nil, ashlar.E("orphan: report", fmt.Sprintf("key=%x", row.Key), ashlar.Corrupt, err)
			}
			if r.Version != reportVersion {
				return nil, ashlar.E("orphan: report", r.Name, ashlar.Invalid, fmt.Errorf("version %d is unknown", r.Version))
			}
			all = append(all, r)
		}
		start = page.Next
	}
	return all, nil
}
