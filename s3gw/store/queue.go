package store

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"ashlar"
	"ashlar/daemon/meta"
	"ashlar/s3gw/notify"
	"ashlar/s3gw/store/row"
)

// The notifications of a bucket: how they are kept, and how what happens to an
// object is queued for those who are to be told. Sending is in deliver.go.

const (
	// queueMaxDefault is how many events of a target a shard keeps if Options say
	// nothing.
	queueMaxDefault = 100_000
	// queueLook is for how long a look at the length of a queue is believed.
	queueLook = time.Second
	// byS3 stands for who does what a rule of the bucket wants.
	byS3 = "s3.amazonaws.com"
)

// Origin is the request in which something happens, for those who are told of it.
type Origin struct {
	// Principal is who sent it, Source the address that it came from, Request its id
	// and Host that of the gateway.
	Principal, Source, Request, Host string
}

type originKey struct{}

// WithOrigin says in which request what is done with ctx is done.
func WithOrigin(ctx context.Context, o *Origin) context.Context {
	return context.WithValue(ctx, originKey{}, o)
}

// Notification returns the notification configuration of a bucket, nil if it has
// none. Errors: ErrNoSuchBucket.
func (s *Store) Notification(ctx context.Context, name string) (*notify.Config, error) {
	b, err := s.lookupFresh(ctx, name)
	if err != nil {
		return nil, fail("notification", name, err)
	}
	return b.notes, nil
}

// SetNotification replaces the notification configuration of a bucket; nil removes
// it. With test each target is told so, as S3 does it. Other Stores follow within
// cacheFor. Errors: ErrNoSuchBucket.
func (s *Store) SetNotification(ctx context.Context, name string, c *notify.Config, test bool) error {
	var told []string
	err := s.changeBucketAnd(ctx, name, func(_ *bucket, rec *row.Bucket, txn *meta.Txn) (err error) {
		rec.Notification, told = rowNotification(c), nil
		if c != nil && test {
			told, err = s.tellTest(ctx, name, c, rec, txn)
		}
		return err
	})
	if err == nil {
		s.woken(directoryShard, told)
	}
	return fail("set notification", name, err)
}

// tellTest queues a test for each target, in the transaction that sets the configuration.
func (s *Store) tellTest(ctx context.Context, name string, c *notify.Config, rec *row.Bucket, txn *meta.Txn) (told []string, err error) {
	now := s.clock()
	value, err := row.Encode(originOf(ctx, &row.Event{
		Format: row.Format, Name: notify.Test, AtNs: now.UnixNano(), Bucket: name, Owner: rec.Owner, Principal: byS3, Source: byS3,
	}))
	if err != nil {
		return nil, err
	}
	var at row.Slot
	copy(at.Bucket[:], rec.Id)
	targets := map[string]bool{}
	for i := range c.Rules {
		targets[c.Rules[i].Target()] = true
	}
	for _, target := range slices.Sorted(maps.Keys(targets)) {
		full, err := s.queueFull(ctx, directoryShard, target)
		if err != nil {
			return nil, err
		}
		if full {
			txn.Adds = append(txn.Adds, meta.Add{Key: row.Queued(target, row.CountLost), Delta: 1})
			continue
		}
		told = append(told, target)
		txn.Adds = append(txn.Adds, meta.Add{Key: row.Queued(target, row.CountEvents), Delta: 1})
		txn.Puts = append(txn.Puts, meta.Put{Key: at.Event(target, "", row.NewVersionID(now)), Value: value})
	}
	return told, nil
}

// originOf says in the event in whose request it happens.
func originOf(ctx context.Context, e *row.Event) *row.Event {
	if o, _ := ctx.Value(originKey{}).(*Origin); o != nil {
		e.Principal, e.Source, e.Request, e.Host = o.Principal, o.Source, o.Request, o.Host
	}
	return e
}

func notification(m *row.Notification) *notify.Config {
	if m == nil {
		return nil
	}
	c := &notify.Config{}
	for _, r := range m.Rules {
		c.Rules = append(c.Rules, notify.Rule{ID: r.Id, Kind: notify.Kind(r.Kind), ARN: r.Arn, Events: r.Events, Prefix: r.Prefix, Suffix: r.Suffix})
	}
	return c
}

func rowNotification(c *notify.Config) *row.Notification {
	if c == nil {
		return nil
	}
	m := &row.Notification{}
	for _, r := range c.Rules {
		m.Rules = append(m.Rules, &row.NotificationRule{
			Id: r.ID, Kind: row.NotificationRule_Kind(r.Kind), Arn: r.ARN, Events: r.Events, Prefix: r.Prefix, Suffix: r.Suffix,
		})
	}
	return m
}

// tell queues, in the transaction, that something happens to a version of the key,
// if the bucket's notifications want that told. An event that finds its queue full is
// counted instead: who is told must not keep others from writing.
func (ch *change) tell(ctx context.Context, name string, m *row.Object) error {
	rule := ch.notes.Match(name, ch.key)
	if rule == nil {
		return nil
	}
	target := rule.Target()
	full, err := ch.s.queueFull(ctx, ch.sl.shard, target)
	if err != nil {
		return err
	}
	if full {
		ch.Adds = append(ch.Adds, meta.Add{Key: row.Queued(target, row.CountLost), Delta: 1})
		return nil
	}
	e := &row.Event{
		Format: row.Format, Name: name, AtNs: ch.at.UnixNano(), Rule: rule.ID, Bucket: ch.bucket, Owner: ch.owner,
		Version: writtenVersion(m), Principal: byS3, Source: byS3,
	}
	if !ch.byRule {
		originOf(ctx, e)
	}
	if name != notify.Delete && name != notify.Expired && !m.DeleteMarker {
		e.Etag, e.Bytes = etag(m.EtagMd5, m.EtagParts), m.Bytes
	}
	id := row.NewVersionID(ch.at)
	if ch.cur.row != nil {
		id = id.Above(ch.cur.row.Version)
	}
	ch.told = append(ch.told, target)
	ch.Adds = append(ch.Adds, meta.Add{Key: row.Queued(target, row.CountEvents), Delta: 1})
	return ch.store(ch.sl.Event(target, ch.key, id), e)
}

// tellRemoved is tell for a version that goes, or a delete marker that comes.
func (ch *change) tellRemoved(ctx context.Context, m *row.Object, marker bool) error {
	name := map[[2]bool]string{
		{false, false}: notify.Delete, {false, true}: notify.MarkerCreated, {true, false}: notify.Expired, {true, true}: notify.ExpiredByMarker,
	}[[2]bool{ch.byRule, marker}]
	return ch.tell(ctx, name, m)
}

// event is what a queue row says.
func event(r *meta.Row) (*notify.Event, error) {
	at, ok := row.ParseEvent(r.Key)
	if !ok {
		return nil, ashlar.E("store: queue", hex.EncodeToString(r.Key), ashlar.Corrupt, nil)
	}
	var m row.Event
	if err := row.Decode(r.Key, r.Value, &m); err != nil {
		return nil, err
	}
	return &notify.Event{
		Name: m.Name, At: fromNS(m.AtNs), Rule: m.Rule, Bucket: m.Bucket, Owner: m.Owner, Key: at.Key, Version: m.Version, ETag: m.Etag,
		Bytes: m.Bytes, Principal: m.Principal, Source: m.Source, Request: m.Request, Host: m.Host, ID: at.ID.String(), Sequence: r.Version,
	}, nil
}

// queues is what a Store knows of the queues of targets.
type queues struct {
	mu     sync.Mutex
	looks  map[shardQueue]look                       // guarded by mu
	awake  map[string]chan struct{}                  // guarded by mu: of the queues that this Store sends
	filled map[string]map[ashlar.ShardID]bool        // guarded by mu: where events came since
	stats  map[string]*QueueStats                    // guarded by mu
	counts map[string]map[ashlar.ShardID]queueCounts // guarded by mu: as they were read last
}

type shardQueue struct {
	shard  ashlar.ShardID
	target string
}

type look struct {
	full  bool
	until time.Time
}

// queueFull reports whether a queue of a shard holds as many events as it may; more
// may have come within queueLook.
func (s *Store) queueFull(ctx context.Context, shard ashlar.ShardID, target string) (bool, error) {
	at, now := shardQueue{shard, target}, s.clock()
	s.queues.mu.Lock()
	seen := s.queues.looks[at]
	s.queues.mu.Unlock()
	if now.Before(seen.until) {
		return seen.full, nil
	}
	n, err := s.readQueueCounts(ctx, shard, target)
	if err != nil {
		return false, err
	}
	seen = look{full: n.events >= s.queueMax, until: now.Add(queueLook)}
	s.queues.mu.Lock()
	defer s.queues.mu.Unlock()
	if s.queues.looks == nil || len(s.queues.looks) >= cacheMax {
		s.queues.looks = map[shardQueue]look{}
	}
	if seen.full && !s.queues.looks[at].full {
		s.log.Error("store: a queue of events is full: what happens is not told until there is room, but counted", "target", target, "shard", shard)
	}
	s.queues.looks[at] = seen
	return seen.full, nil
}

// queueCounts are the counters of a queue of a shard.
type queueCounts struct{ events, lost int64 }

func (s *Store) readQueueCounts(ctx context.Context, shard ashlar.ShardID, target string) (n queueCounts, err error) {
	start := row.Queued(target, 0)
	page, err := s.scan(ctx, shard, meta.ScanRequest{Start: start, End: row.Successor(start[:len(start)-1])})
	if err != nil {
		return n, err
	}
	for i := range page.Rows {
		v, err := counter(&page.Rows[i])
		if err != nil {
			return n, err
		}
		switch key := page.Rows[i].Key; key[len(key)-1] {
		case row.CountEvents:
			n.events = v
		case row.CountLost:
			n.lost = v
		}
	}
	return n, nil
}

// Queue is what waits for a target.
type Queue struct {
	Target string
	// Pending events wait, Lost ones were not kept, ever.
	Pending, Lost int64
	// Oldest is when the oldest one happened, of up to 10,000 on each shard; zero: none
	// waits.
	Oldest time.Time
}

// Queues returns the queues of all targets that ever had an event, by name.
func (s *Store) Queues(ctx context.Context) ([]Queue, error) {
	m, err := s.formed()
	if err != nil {
		return nil, fail("queues", "", err)
	}
	queues := map[string]*Queue{}
	for shard := range m.Shards {
		if err := s.shardQueues(ctx, ashlar.ShardID(shard), queues); err != nil {
			return nil, fail("queues", "", err)
		}
	}
	var list []Queue
	for _, name := range slices.Sorted(maps.Keys(queues)) {
		list = append(list, *queues[name])
	}
	return list, nil
}

// shardQueues adds what a shard has.
func (s *Store) shardQueues(ctx context.Context, shard ashlar.ShardID, queues map[string]*Queue) error {
	page, err := s.scan(ctx, shard, meta.ScanRequest{Start: []byte{row.KindQueued}, End: []byte{row.KindQueued + 1}})
	if err != nil {
		return err
	}
	for i := range page.Rows {
		name, which, ok := bytes.Cut(page.Rows[i].Key[1:], []byte{0})
		n, err := counter(&page.Rows[i])
		if err != nil || !ok || len(which) != 1 {
			return errors.Join(err, ashlar.E("store: queue", hex.EncodeToString(page.Rows[i].Key), ashlar.Corrupt, nil))
		}
		q := queues[string(name)]
		if q == nil {
			q = &Queue{Target: string(name)}
			queues[q.Target] = q
		}
		switch which[0] {
		case row.CountLost:
			q.Lost += n
		case row.CountEvents:
			q.Pending += n
			if n > 0 {
				if err := s.oldest(ctx, shard, q); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// oldest looks for the oldest event of a queue of a shard.
func (s *Store) oldest(ctx context.Context, shard ashlar.ShardID, q *Queue) error {
	prefix := row.Queue(q.Target)
	page, err := s.scan(ctx, shard, meta.ScanRequest{Start: prefix, End: row.Successor(prefix), KeysOnly: true})
	if err != nil {
		return err
	}
	for i := range page.Rows {
		if at, ok := row.ParseEvent(page.Rows[i].Key); ok && (q.Oldest.IsZero() || at.ID.Time().Before(q.Oldest)) {
			q.Oldest = at.ID.Time()
		}
	}
	return nil
}

// woken tells the senders of this Store that there are new events on a shard.
func (s *Store) woken(shard ashlar.ShardID, targets []string) {
	s.queues.mu.Lock()
	defer s.queues.mu.Unlock()
	for _, target := range targets {
		if wake := s.queues.awake[target]; wake != nil {
			s.queues.filled[target][shard] = true
			select {
			case wake <- struct{}{}:
			default:
			}
		}
	}
}
