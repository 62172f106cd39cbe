package operate

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"ashlar"
	"ashlar/daemon/meta/trash"
	"ashlar/daemon/orphan"
	"ashlar/daemon/wire"
	"ashlar/s3gw/store"
)

// Garbage is the answer to GarbageStatus.
type Garbage struct {
	Shards []ShardGarbage  `json:"shards"`
	Hosts  []orphan.Report `json:"hosts"`
	// Restored says which backup the cluster was restored from, if what is newer
	// than it is kept.
	Restored *Restored `json:"restored,omitempty"`
}

// Restored names a backup and when it was made.
type Restored struct {
	Backup  string    `json:"backup"`
	Created time.Time `json:"created"`
}

// Render prints it for people, when what is newer than the backup was released.
func (r *Restored) Render(w io.Writer) error {
	_, err := fmt.Fprintf(w, "What is newer than backup %s (%s) and has no row is freed from the next walk on.\n", r.Backup, r.Created.UTC().Format(time.DateTime))
	return err
}

// release lets what is newer than the backup be freed.
func (c *Cluster) release(ctx context.Context) (*Restored, error) {
	from := c.Maps().Restore
	if from.Created.IsZero() {
		return nil, errors.New("nothing is kept for a restore: the cluster was not restored from a backup, or it was released before")
	}
	return &Restored{from.Backup.String(), from.Created}, c.Release(ctx, from.Backup)
}

// ShardGarbage is the trash list of one shard.
type ShardGarbage struct {
	Shard ashlar.ShardID `json:"shard"`
	Rows  int            `json:"rows"`
	Bytes uint64         `json:"bytes"`
	// Oldest is when the first entry was dropped; zero: there is none. Lag is how
	// long it lies beyond the grace.
	Oldest time.Time     `json:"oldest"`
	Lag    time.Duration `json:"lag_ns"`
}

func (c *Cluster) garbage(ctx context.Context) (*Garbage, error) {
	g := &Garbage{}
	if from := c.Maps().Restore; !from.Created.IsZero() {
		g.Restored = &Restored{from.Backup.String(), from.Created}
	}
	var err error
	if g.Hosts, err = orphan.Reports(ctx, c.Meta); err != nil {
		return nil, err
	}
	grace := time.Duration(0)
	for _, h := range g.Hosts {
		grace = max(grace, h.TrashGrace)
	}
	now := time.Now()
	for i := range c.Maps().Shards {
		s := ShardGarbage{Shard: ashlar.ShardID(i)}
		err := trash.Each(ctx, c.Meta, s.Shard, func(e trash.Entry) {
			if s.Rows == 0 {
				s.Oldest = e.Dropped
				s.Lag = max(0, now.Sub(e.Dropped)-grace)
			}
			s.Rows++
			for _, x := range e.Extents {
				s.Bytes += x.Bytes
			}
		})
		if err != nil {
			return nil, fmt.Errorf("trash of shard %d: %w", i, err)
		}
		g.Shards = append(g.Shards, s)
	}
	return g, nil
}

// Render prints it for people.
func (g *Garbage) Render(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SHARD\tTRASH ROWS\tBYTES\tOLDEST\tBEYOND GRACE")
	for _, s := range g.Shards {
		oldest := "-"
		if s.Rows > 0 {
			oldest = s.Oldest.UTC().Format(time.DateTime)
		}
		fmt.Fprintf(t, "%d\t%d\t%d\t%s\t%v\n", s.Shard, s.Rows, s.Bytes, oldest, s.Lag.Round(time.Second))
	}
	fmt.Fprintln(t, "\nHOST\tFREED ROWS\tFREED BYTES\tHELD\tLOOKED AT\tCANDIDATES\tORPHANS FREED\tBYTES\tMISSING FOUND\tLAST WALK")
	for _, h := range g.Hosts {
		walk := "never"
		if !h.LastWalk.IsZero() {
			walk = h.LastWalk.UTC().Format(time.DateTime)
		}
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%s\n", h.Name, h.TrashRows, h.TrashBytes, h.TrashHeld,
			h.Looked, h.Candidates, h.Freed, h.FreedBytes, h.Missing, walk)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if err := g.renderKept(w); err != nil {
		return err
	}
	for _, h := range g.Hosts {
		_, err := fmt.Fprintf(w, "\nTrash is freed %v after it was dropped; orphans within %v (age %v, a walk every %v, a second look %v later).\n",
			h.TrashGrace, h.OrphanGrace+h.WalkPeriod+h.OrphanConfirm, h.OrphanGrace, h.WalkPeriod, h.OrphanConfirm)
		return err // the hosts of a cluster are configured alike
	}
	_, err := fmt.Fprintln(w, "\nNo host has reported yet.")
	return err
}

// renderKept says what is kept because a restore lost its rows.
func (g *Garbage) renderKept(w io.Writer) error {
	if g.Restored == nil {
		return nil
	}
	var stripes, bytes uint64
	for _, h := range g.Hosts {
		stripes, bytes = stripes+h.Kept, bytes+h.KeptBytes
	}
	_, err := fmt.Fprintf(w, "\nThe cluster was restored from backup %s of %s. %d stripes, %d bytes, were found that are newer\n"+
		"and have no row: they are kept, and may be all that is left of what was written since. `ashlar gc release`\nlets them be freed.\n",
		g.Restored.Backup, g.Restored.Created.UTC().Format(time.DateTime), stripes, bytes)
	return err
}

// Held is the answer to GarbageExplain: why space is held.
type Held struct {
	Bucket string `json:"bucket"`
	Key    string `json:"key"`
	// Stripe and Pieces are set if a stripe was asked for.
	Stripe string   `json:"stripe,omitempty"`
	Pieces []string `json:"pieces,omitempty"`
	Age    string   `json:"age,omitempty"`
	Why    []Why    `json:"why"`
}

// Why is one reason.
type Why struct {
	// What is "current version", "older version", "part of an upload", "trash",
	// or, of a stripe only, "nothing refers to it".
	What    string `json:"what"`
	Version string `json:"version,omitempty"`
	Upload  string `json:"upload,omitempty"`
	Bytes   uint64 `json:"bytes"`
	// Until is when trash may be freed.
	Until time.Time `json:"until,omitzero"`
}

func (c *Cluster) explain(ctx context.Context, what string) (*Held, error) {
	if id, err := hex.DecodeString(what); err == nil && len(id) == 16 {
		return c.explainStripe(ctx, ashlar.StripeID(id))
	}
	bucket, key, ok := strings.Cut(strings.TrimPrefix(what, "s3://"), "/")
	if !ok || bucket == "" || key == "" {
		return nil, fmt.Errorf("%q: want BUCKET/KEY, or a stripe id of 32 hex digits", what)
	}
	refs := store.NewReferences(c.Meta)
	id, err := refs.ByName(ctx, bucket)
	if err != nil {
		return nil, fmt.Errorf("bucket %s: %w", bucket, err)
	}
	h := &Held{Bucket: bucket, Key: key}
	return h, c.why(ctx, h, refs, id, 0)
}

// why lists what refers to the key, or to one write of it.
func (c *Cluster) why(ctx context.Context, h *Held, refs *store.References, id ashlar.BucketID, write ashlar.WriteID) error {
	of := func(extents []ashlar.Extent) (bytes uint64, ok bool) {
		for _, x := range extents {
			bytes += x.Bytes
			ok = ok || write == 0 || x.Write == write
		}
		return bytes, ok
	}
	err := refs.Each(ctx, id, h.Key, nil, func(r store.Reference) {
		h.Bucket = r.Bucket
		if n, ok := of(r.Extents); ok {
			h.Why = append(h.Why, Why{What: r.What, Version: r.Version, Upload: r.Upload, Bytes: n})
		}
	})
	if err != nil {
		return err
	}
	reports, err := orphan.Reports(ctx, c.Meta)
	if err != nil {
		return err
	}
	grace := time.Duration(0)
	for _, r := range reports {
		grace = max(grace, r.TrashGrace)
	}
	for i := range c.Maps().Shards {
		err := trash.Each(ctx, c.Meta, ashlar.ShardID(i), func(e trash.Entry) {
			if n, ok := of(e.Extents); ok && e.Bucket == id && e.Key == h.Key {
				h.Why = append(h.Why, Why{What: "trash", Bytes: n, Until: e.Dropped.Add(grace)})
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) explainStripe(ctx context.Context, id ashlar.StripeID) (*Held, error) {
	m := c.Maps()
	_, g := m.Group(id)
	h := &Held{Stripe: id.String()}
	var rec wire.Piece
	found := false
	for i := range g.Disks {
		at := m.Seat(id, i)
		if found && i >= rec.Code.Pieces() {
			break
		}
		host, err := c.Pieces(at.Host)
		var p wire.Piece
		if err == nil {
			p, err = host.DescribePiece(ctx, wire.PieceRange{PieceID: wire.PieceID{Stripe: id, Index: uint8(i)}, Disk: at.Disk, Epoch: m.Epoch})
		}
		disk, _ := m.DiskByID(at.Disk)
		switch {
		case err == nil:
			rec, found = p, true
			h.Pieces = append(h.Pieces, fmt.Sprintf("%d %s there", i, disk.Name))
		case ashlar.Is(err, ashlar.NotFound):
			h.Pieces = append(h.Pieces, fmt.Sprintf("%d %s not there", i, disk.Name))
		default:
			h.Pieces = append(h.Pieces, fmt.Sprintf("%d %s not known: %v", i, disk.Name, err))
		}
	}
	if !found {
		return nil, fmt.Errorf("no disk of its group has a piece of stripe %v:\n  %s", id, strings.Join(h.Pieces, "\n  "))
	}
	h.Pieces = slices.DeleteFunc(h.Pieces, func(p string) bool {
		var i int
		_, err := fmt.Sscan(p, &i)
		return err == nil && i >= rec.Code.Pieces()
	})
	h.Key, h.Bucket, h.Age = rec.Owner.Key, "id "+rec.Owner.Bucket.String(), time.Since(rec.Written).Round(time.Second).String()
	err := c.why(ctx, h, store.NewReferences(c.Meta), rec.Owner.Bucket, id.Write())
	if err == nil && len(h.Why) == 0 {
		h.Why = []Why{{What: "nothing refers to it: the search for orphans frees it when it is old enough", Bytes: uint64(rec.StripeBytes)}}
		if m.Restore.Unnamed(rec.Written, orphan.DefaultGrace) {
			h.Why[0].What = "nothing refers to it, but its row may have been lost before the restore from a backup: it is kept until `ashlar gc release`"
		}
	}
	return h, err
}

// Render prints it for people.
func (h *Held) Render(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "bucket %s, key %q", h.Bucket, h.Key)
	if h.Stripe != "" {
		fmt.Fprintf(&b, ", stripe %s, written %s ago", h.Stripe, h.Age)
	}
	b.WriteByte('\n')
	for _, y := range h.Why {
		fmt.Fprintf(&b, "  %s, %d bytes", y.What, y.Bytes)
		if y.Version != "" {
			fmt.Fprintf(&b, ", version %s", y.Version)
		}
		if y.Upload != "" {
			fmt.Fprintf(&b, ", upload %s", y.Upload)
		}
		if !y.Until.IsZero() {
			fmt.Fprintf(&b, ", until %s", y.Until.UTC().Format(time.DateTime))
		}
		b.WriteByte('\n')
	}
	if len(h.Why) == 0 {
		b.WriteString("  nothing is held\n")
	}
	for _, p := range h.Pieces {
		fmt.Fprintf(&b, "  piece %s\n", p)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
