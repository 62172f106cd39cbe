package replica

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"ashlar"
	"ashlar/daemon/wire"
)

// Transport carries messages to the replicas on other hosts.
type Transport interface {
	// Send hands over a batch. It never waits; it may lose the batch, and it
	// keeps the batch. Neither side changes the messages.
	Send(to ashlar.HostID, batch *wire.RaftBatch)
	// SendSnapshot returns when the chunk was taken, or why not.
	SendSnapshot(ctx context.Context, to ashlar.HostID, chunk *wire.SnapshotChunk) error
}

const (
	// sendMax bounds the delivery of one parcel.
	sendMax = 5 * time.Second
	// sendQueueMax bounds the batches that wait for one host; more are dropped.
	sendQueueMax = 1024
	// sendBytesMax is about the most bytes of one parcel; one message may be larger.
	sendBytesMax = 4 * ashlar.MiB
	// bulkBytesMin is the size from which a message goes its own way, so that
	// beats do not wait behind it. Raft does not mind the change of order.
	bulkBytesMin = 32 * ashlar.KiB
)

// Link is the Transport over wire.Shards: two goroutines per remote host, one
// for bulk, merge what waits into parcels; a *Host of this process is called
// directly.
type Link struct {
	dial func(ashlar.HostID) (wire.Shards, error)
	log  *slog.Logger

	ctx    context.Context
	cancel context.CancelFunc
	done   sync.WaitGroup
	mu     struct {
		sync.Mutex
		peers map[way]*queue[*wire.RaftBatch]
	}
}

var _ Transport = (*Link)(nil)

// way is one of the two ways to a host.
type way struct {
	to   ashlar.HostID
	bulk bool
}

// NewLink returns a Transport. Dial returns the Shards of a host: a *Host of
// this process, or a connection that dial keeps and shares. It must not wait.
// A nil log drops what it is told.
func NewLink(dial func(ashlar.HostID) (wire.Shards, error), log *slog.Logger) *Link {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	l := &Link{dial: dial, log: log}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.mu.peers = map[way]*queue[*wire.RaftBatch]{}
	return l
}

// Close ends the goroutines; what waits is dropped.
func (l *Link) Close() error {
	l.mu.Lock()
	l.cancel()
	l.mu.Unlock()
	l.done.Wait()
	return nil
}

// Send implements Transport.
func (l *Link) Send(to ashlar.HostID, batch *wire.RaftBatch) {
	s, err := l.dial(to)
	if err != nil {
		return // not there now; raft sends again
	}
	if h, ok := s.(*Host); ok {
		_ = h.Deliver(l.ctx, batch) // a stopped host loses it, as the network would
		return
	}
	small, bulk := split(batch)
	for _, b := range []*wire.RaftBatch{small, bulk} {
		if len(b.Messages) > 0 {
			l.peer(way{to, b.Bulk}).put(sendQueueMax, b)
		}
	}
}

// split parts the large messages from the small ones. The batch is used up.
func split(batch *wire.RaftBatch) (small, bulk *wire.RaftBatch) {
	bulk = &wire.RaftBatch{From: batch.From, Bulk: true}
	kept := batch.Messages[:0]
	for i := range batch.Messages {
		if messageBytes(&batch.Messages[i]) < bulkBytesMin {
			kept = append(kept, batch.Messages[i])
		} else {
			bulk.Messages = append(bulk.Messages, batch.Messages[i])
		}
	}
	batch.Messages = kept
	return batch, bulk
}

// peer returns the queue of a way; its goroutine ends with Close.
func (l *Link) peer(w way) *queue[*wire.RaftBatch] {
	l.mu.Lock()
	defer l.mu.Unlock()
	q := l.mu.peers[w]
	if q == nil {
		q = newQueue[*wire.RaftBatch]()
		l.mu.peers[w] = q
		if l.ctx.Err() == nil {
			l.done.Go(func() { l.deliver(w.to, q) })
		}
	}
	return q
}

func (l *Link) deliver(to ashlar.HostID, q *queue[*wire.RaftBatch]) {
	var batches []*wire.RaftBatch
	reachable := true
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-q.wake:
		}
		batches = q.take(batches)
		for rest := batches; len(rest) > 0; {
			var parcel *wire.RaftBatch
			parcel, rest = merge(rest)
			err := l.deliverOne(to, parcel)
			if (err == nil) != reachable {
				reachable = err == nil
				l.log.Info("metadata link", "code", "meta-link", "to", to, "reachable", reachable, "err", err)
			}
		}
	}
}

func (l *Link) deliverOne(to ashlar.HostID, parcel *wire.RaftBatch) error {
	s, err := l.dial(to)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(l.ctx, sendMax)
	defer cancel()
	return s.Deliver(ctx, parcel)
}

// merge makes a parcel of the first batches and returns the others. A batch
// that is too large for one parcel is split.
func merge(batches []*wire.RaftBatch) (parcel *wire.RaftBatch, rest []*wire.RaftBatch) {
	parcel = &wire.RaftBatch{From: batches[0].From, Bulk: batches[0].Bulk}
	sum := 0
	for i, b := range batches {
		for j := range b.Messages {
			if sum >= sendBytesMax {
				left := &wire.RaftBatch{From: b.From, Messages: b.Messages[j:], Bulk: b.Bulk}
				batches[i] = left
				return parcel, batches[i:]
			}
			parcel.Messages = append(parcel.Messages, b.Messages[j])
			sum += messageBytes(&b.Messages[j])
		}
	}
	return parcel, nil
}

func messageBytes(m *wire.RaftMessage) int {
	n := 64
	for _, e := range m.Raft.GetEntries() {
		n += int(entryBytes(e))
	}
	return n
}

// SendSnapshot implements Transport.
func (l *Link) SendSnapshot(ctx context.Context, to ashlar.HostID, chunk *wire.SnapshotChunk) error {
	s, err := l.dial(to)
	if err != nil {
		return err
	}
	return s.InstallSnapshot(ctx, chunk)
}

// Deliver implements wire.Shards.
func (h *Host) Deliver(ctx context.Context, batch *wire.RaftBatch) error {
	const op = "meta: deliver"
	if err := h.usable(ctx, op); err != nil {
		return err
	}
	if !h.events.put(eventsMax, event{kind: eventMessages, batch: batch}) {
		return ashlar.E(op, "", ashlar.Busy, nil)
	}
	return nil
}
