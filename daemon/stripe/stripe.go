// Package stripe is the coordinator of bodies on one host: a stream in, an
// extent out, and back. It cuts a body into stripes, encodes them as they
// arrive, keeps their pieces on the disks of each stripe's group, and reads
// them back whatever m of a group's disks do.
//
// Writing. A stripe is read from the body straight into the place where its
// pieces are sent from, row by row, and each row is encoded and summed while it
// is hot. The pieces go to the group's disks in parallel. A stripe counts as
// written at Code.Quorum() durable pieces; the others go on in the background
// until their (then shorter) deadline, and what failed by then is reported
// through Config.Missed. At most flightsMax stripes of an upload are on their way, so
// that receiving overlaps writing. An upload that fails takes its stripes away
// again in the background, after its last piece has settled.
//
//	body ──► rows ──► parity, sums ──► k+m pieces ──► W durable ──► next
//	                                        └── the rest ──► Missed
//
// Reading. A range is read window by window. Each window asks the data pieces
// that hold it, once each; a piece that fails, or is later than most reads are,
// is rebuilt from the same columns of k others. Every byte that leaves was
// verified by the disk's room and, between hosts, by the wire. Fewer than k
// good pieces is Unavailable, never NotFound, never wrong bytes.
//
// Memory. All buffers come from one pool, in three shares (Memory). The order
// in which they may be waited for, which is why copying an object from and to
// the same host cannot deadlock (a source that lost its memory waits for it again
// under a write lease, and then takes it from a source whose writer still waits):
//
//	write    held while a body is read, so while a reader feeds it; a body that hardly
//	         moves loses it if others wait
//	read     taken once, before the first byte; a started stream never waits for it again,
//	         and loses it if nobody takes its bytes while others wait (reclaim.go)
//	rebuild  held only while disks answer, never while a consumer is waited for
//
// Time. Every call to a host has a deadline (Config); everything that outlives
// a request is owned by the Coordinator and ends with Close.
package stripe

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"ashlar"
	"ashlar/daemon/buffer"
	"ashlar/daemon/wire"
	"ashlar/placement/topology"
)

// Bounds of the coordinator's work.
const (
	// flightsMax is the number of stripes of one upload whose quorum is awaited.
	flightsMax = 2
	// sweepsMax bounds the deletes of pieces that run at once, of one call and
	// of the background together.
	sweepsMax = 64
	// UploadMax bounds one body, however slowly it comes: the search for orphans
	// relies on it.
	UploadMax = 12 * time.Hour
	// newerMapWait is how long a stale request waits for a newer map.
	newerMapWait = 2 * time.Second
	// newerMapPoll is how often it looks.
	newerMapPoll = 20 * time.Millisecond
)

// Defaults of Config.
const (
	DefaultPieceTimeout  = 30 * time.Second
	DefaultReadTimeout   = 10 * time.Second
	DefaultDeleteTimeout = 30 * time.Second
	// DefaultStragglerTimeout is short because stragglers hold memory: with one
	// disk hung, a stream of uploads fills the write share with its pieces.
	DefaultStragglerTimeout = 5 * time.Second
	DefaultWindowBytes      = 4 * ashlar.MiB
)

// Missed is a piece that a stripe lacks although the stripe was acknowledged:
// it could not be stored in time, or a read found it lost or changed.
type Missed struct {
	wire.PieceID
	Code        ashlar.Code
	StripeBytes uint32
	Owner       ashlar.Owner
	// Written is when the stripe was; zero if only a read knows of the piece.
	Written time.Time
}

// Memory is the budget of the buffers. Several coordinators of one process may
// use the same Memory.
type Memory struct {
	Write, Read, Rebuild *buffer.Share
	// BriefWrite and BriefRead are for bodies of up to wire.BriefBytesMax: they are
	// soon done, and need not wait behind long ones.
	BriefWrite, BriefRead *buffer.Share
}

// NewMemory divides bytes of a pool: half for writing and three eighths for
// reading, a sixteenth of each for short bodies; an eighth for rebuilding. It must
// hold a few stripes: at least 8 × (k+m)/k × StripeBytes is advised; less than one
// stripe fails requests.
func NewMemory(pool *buffer.Pool, bytes int64) *Memory {
	brief := bytes / 32
	return &Memory{
		Write: pool.Share(bytes/2 - brief), Read: pool.Share(bytes*3/8 - brief), Rebuild: pool.Share(bytes / 8),
		BriefWrite: pool.Share(brief), BriefRead: pool.Share(brief),
	}
}

// Config is what a coordinator needs of its surroundings.
type Config struct {
	// Local is the host that the coordinator runs on; its disks are asked first
	// where any disk will do.
	Local ashlar.HostID
	// Maps returns the newest map seen, nil if there is none yet.
	Maps func() *topology.Map
	// Dial returns the disks of a host. It must not block.
	Dial func(ashlar.HostID) (wire.Pieces, error)
	// Missed is told of every piece that an acknowledged stripe lacks, and may
	// be told of one more than once. It must not block for long. Nil drops them.
	Missed func(Missed)
	// Memory is required.
	Memory *Memory
	Log    *slog.Logger

	// PieceTimeout bounds one write of a piece, ReadTimeout one read,
	// DeleteTimeout one delete. Zero means the default.
	PieceTimeout, ReadTimeout, DeleteTimeout time.Duration
	// StragglerTimeout is what the pieces that are not stored yet have left once
	// their stripe has its quorum. Zero means the default.
	StragglerTimeout time.Duration
	// WindowBytes is how much user data a stream fetches at once. Zero means the default.
	WindowBytes int
}

// Coordinator implements wire.Stripes. It is safe for concurrent use.
type Coordinator struct {
	cfg   Config
	ctx   context.Context // ends when Close gives up waiting
	stop  context.CancelFunc
	sweep chan struct{} // one token for each delete that runs
	late  *lateness
	slow  *slowness

	streams streams
	uploads uploads

	mu     sync.Mutex
	closed bool
	bg     sync.WaitGroup // flights and sweeps; Add only under mu
}

var _ wire.Stripes = (*Coordinator)(nil)

// New returns a coordinator. Close it to end its background work.
func New(cfg Config) *Coordinator {
	cfg.PieceTimeout = orDefault(cfg.PieceTimeout, DefaultPieceTimeout)
	cfg.ReadTimeout = orDefault(cfg.ReadTimeout, DefaultReadTimeout)
	cfg.DeleteTimeout = orDefault(cfg.DeleteTimeout, DefaultDeleteTimeout)
	cfg.StragglerTimeout = orDefault(cfg.StragglerTimeout, DefaultStragglerTimeout)
	cfg.WindowBytes = orDefault(cfg.WindowBytes, DefaultWindowBytes)
	if cfg.Missed == nil {
		cfg.Missed = func(Missed) {}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	ctx, stop := context.WithCancel(context.Background())
	return &Coordinator{cfg: cfg, ctx: ctx, stop: stop, sweep: make(chan struct{}, sweepsMax), late: newLateness(), slow: newSlowness(time.Now)}
}

func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

// Close refuses new writes, waits for pieces and deletes that are still on
// their way until ctx ends, and then cancels them. What was acknowledged is
// durable already; pieces that are cancelled here are reported as missed.
func (c *Coordinator) Close(ctx context.Context) {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	done := make(chan struct{})
	go func() { c.bg.Wait(); close(done) }() // ends once every call obeyed its cancel
	select {
	case <-done:
	case <-ctx.Done():
	}
	c.stop()
	<-done
}

// background runs f, owned by the coordinator; false means it is closing.
func (c *Coordinator) background(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.bg.Add(1)
	go func() { defer c.bg.Done(); f() }()
	return true
}

// formed returns the map, or Unavailable while there is none to work with.
func (c *Coordinator) formed(op string) (*topology.Map, error) {
	m := c.cfg.Maps()
	if !m.Formed() {
		return nil, ashlar.E(op, "", ashlar.Unavailable, errNotFormed)
	}
	return m, nil
}

// newer waits a moment for a map newer than epoch, which some host has seen.
// It returns nil if none comes.
func (c *Coordinator) newer(ctx context.Context, epoch ashlar.Epoch) *topology.Map {
	ctx, cancel := context.WithTimeout(ctx, newerMapWait)
	defer cancel()
	tick := time.NewTicker(newerMapPoll)
	defer tick.Stop()
	for {
		if m := c.cfg.Maps(); m.Formed() && m.Epoch > epoch {
			return m
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}
