package placement

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"path/filepath"
	"strings"
	"sync"

	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"ashlar"
)

// What the engine is allowed.
const (
	mapBytesMax     = 16 * ashlar.MiB // one map
	engineBytesMax  = 2 * ashlar.GiB  // all revisions kept
	walSegmentBytes = 16 * ashlar.MiB // preallocated twice for each member
	revisionsKept   = "64"            // older maps are compacted away
	tickMillis      = 100             // between the leader's signs of life
	electionMillis  = 10 * tickMillis // silence before an election
	snapshotEvery   = 1000            // entries: the log is short, each may be a whole map
	catchUpEntries  = snapshotEvery / 2
)

// starting is held while an engine of this process starts. A new member asks
// its peers whether the cluster is there already; a peer whose port is open but
// does not answer yet, because it starts too, would cost a second each.
var starting sync.Mutex

// walSize makes the setting of the engine's one global happen before any use of it.
var walSize sync.Once

// startEngine starts the embedded etcd. It opens the peer listener and no
// client port: the member's own client lives in this process. Ctx ends when
// the member is about to stop the engine.
func startEngine(ctx context.Context, cfg *Config, log *slog.Logger) (*embed.Etcd, error) {
	walSize.Do(func() { wal.SegmentSizeBytes = walSegmentBytes })
	advertise, err := peerURL(cfg.Peers[cfg.Name])
	if err != nil {
		return nil, err
	}
	listen := *advertise
	if cfg.ListenPeer != "" {
		listen.Host = cfg.ListenPeer
	}
	var all []string
	for _, name := range cfg.names() {
		if _, err := peerURL(cfg.Peers[name]); err != nil {
			return nil, err
		}
		all = append(all, name+"="+cfg.Peers[name])
	}
	e := embed.NewConfig()
	e.Name, e.Dir = cfg.Name, filepath.Join(cfg.Dir, "etcd")
	e.ListenPeerUrls, e.AdvertisePeerUrls = []url.URL{listen}, []url.URL{*advertise}
	e.SocketOpts.ReusePort = cfg.SharePorts
	e.ListenClientUrls, e.AdvertiseClientUrls = nil, nil
	e.InitialCluster, e.InitialClusterToken = strings.Join(all, ","), "ashlar-"+cfg.Cluster
	e.TickMs, e.ElectionMs = tickMillis, electionMillis
	e.SnapshotCount, e.SnapshotCatchUpEntries = snapshotEvery, catchUpEntries
	e.MaxRequestBytes, e.QuotaBackendBytes = mapBytesMax, engineBytesMax
	e.AutoCompactionMode, e.AutoCompactionRetention = embed.CompactorModeRevision, revisionsKept
	e.MaxWalFiles, e.MaxSnapFiles = 2, 2
	e.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.New(&zapToSlog{ctx: ctx, log: log}))
	starting.Lock()
	defer starting.Unlock()
	return embed.StartEtcd(e)
}

func peerURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" || u.Host == "" || u.Port() == "" || u.Path != "" {
		return nil, fmt.Errorf("peer %q: want http://host:port", s)
	}
	return u, nil
}

// atBirth is what every new member says until its first snapshot.
const atBirth = "failed to update storage version"

// zapToSlog passes the engine's messages on, one level lower than it thinks:
// its warnings are of the kind "a peer is slow" and resolve themselves. What it
// complains of while it is being stopped is of no interest.
type zapToSlog struct {
	ctx    context.Context // the member's life
	log    *slog.Logger
	fields []zapcore.Field
}

func (z *zapToSlog) Enabled(l zapcore.Level) bool { return l >= zapcore.WarnLevel }

func (z *zapToSlog) With(f []zapcore.Field) zapcore.Core {
	return &zapToSlog{ctx: z.ctx, log: z.log, fields: append(z.fields[:len(z.fields):len(z.fields)], f...)}
}

func (z *zapToSlog) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if z.Enabled(e.Level) {
		return ce.AddCore(e, z)
	}
	return ce
}

func (z *zapToSlog) Write(e zapcore.Entry, f []zapcore.Field) error {
	enc := zapcore.NewMapObjectEncoder()
	for _, field := range append(z.fields[:len(z.fields):len(z.fields)], f...) {
		field.AddTo(enc)
	}
	attrs := make([]any, 0, 2*len(enc.Fields))
	for k, v := range enc.Fields {
		attrs = append(attrs, k, v)
	}
	level := slog.LevelWarn
	switch {
	case e.Level == zapcore.WarnLevel || z.ctx.Err() != nil || e.Message == atBirth:
		level = slog.LevelDebug
	case e.Level > zapcore.ErrorLevel:
		level = slog.LevelError
	}
	z.log.Log(z.ctx, level, "engine: "+e.Message, attrs...)
	return nil
}

func (z *zapToSlog) Sync() error { return nil }
