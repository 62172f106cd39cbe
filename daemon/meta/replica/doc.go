// Package replica is the engine behind meta.Store: the replicas of many
// metadata shards on one host, each a member of a raft group (etcd-raft), all
// over one Pebble.
//
// # Flow
//
//	 callers            core goroutine              log writer          applier
//	Commit ──propose──▶ RawNode.Step
//	                    Ready ── entries, votes ──▶ one batch, one
//	                          ── messages to peers  sync for all
//	                               (in parallel)    groups that wait
//	                    RawNode.Step ◀── durable ──┘
//	                    Ready ── committed entries ─────────────────▶ machine,
//	answer ◀──────────────────────────────────────────────────────── one batch,
//	                    RawNode.Step ◀──────── applied ───────────┘  no sync
//	Get, Scan ──read──▶ ReadIndex: one round to the quorum for all readers that wait
//	then read Pebble in the caller's own goroutine
//
// The core never waits for a disk or the network. Each of the three takes all
// that is waiting at once, so that batches grow with load and a sync is shared
// by every group of the host. Raft runs with asynchronous storage writes:
// what a vote or an acknowledgement promises leaves the host only after the
// sync.
//
// # What is on disk
//
// Keys begin with a kind and the replica's id (8, big-endian); numbers in
// values are little-endian.
//
//	00                                   format version (1), host id (4)
//	'b' replica                          birth: shard (4), first voters (8 each)
//	'h' replica                          raft: term, vote, commit (8 each)
//	't' replica                          entry before the first: index, term (8 each)
//	'l' replica index(8)                 entry: term (8), type (1), data
//	'k' replica peer(8)                  the peer is known to have taken part: how far
//	                                     it was, term, index (8 each; once empty)
//	'x' replica                          was told that it is behind itself (empty)
//	'a' replica                          applied index and what belongs to it; version 2
//	                                     adds which list of the map is in force
//	's' replica generation(4) 'r' key    row: version (8), value
//	's' replica generation(4) 'd' dedupe generation(8) request id(16)   remembered answer
//
// Effects and applied index are written in one batch. A crash takes the end
// of Pebble's write-ahead log at most, and the log entries were synced before
// their effects were written: whatever effects are gone are applied again, and
// those that are there are skipped by the index. Hence kill -9 is safe at any
// point, and the batch of effects needs no sync of its own.
//
// A received snapshot is collected under the next generation and becomes the
// state by one batch that names that generation in 'a', cuts the log and drops
// the old rows. Generations that nothing names are removed at the next start.
//
// # First start
//
// A replica must never vote twice in a term or forget an entry that it
// acknowledged, so a replica whose directory was lost must not come back under
// its old id. The disk that would remember that is the one that is gone;
// therefore the others remember. Before a replica acts on the first message of
// a peer, it notes durably that the peer has spoken ('k'). A replica without
// state asks all the others that the map names, those that leave too, and starts
// only when each of the list has answered. ('k' is also written with every change of the configuration, for all
// that it names: in the same batch as the log entry or the snapshot.)
//
//   - somebody has heard it before: its data is lost. It stays silent, logs
//     meta-replica-lost, and the shard lives on with the others until the
//     placement gives it a replica with a new id;
//   - somebody was born already, with this replica among the first voters:
//     it is born with the same voters;
//   - somebody was born without it: it was added later. It is born knowing
//     nobody and waits for the leader's snapshot. While the list is changing it need
//     not hear of each, only of a majority of the voters that it is to join: the
//     change that would have let it vote was noted by a majority of them;
//   - nobody is born, all name the same replicas, and the list never changed: they
//     are born with those.
//
// The price is that a shard starts for the first time only when all its
// replicas are up (a restart needs a majority only). What the rule cannot see
// is the loss of every replica that heard the asker: then more was lost than
// the code tolerates, and only a note in the map could tell. A shard with one
// replica has nobody to ask and is born at once.
//
// # Coming back
//
// A directory that was set back in time (an old copy, a snapshot of a volume) is
// worse than a lost one: raft cannot see that votes and entries were forgotten.
// So each message carries how far the life of its sender is on its disk: the
// term, and the last log index that it vouched for within that term, as follower
// or as leader. That never goes back. The others remember it, and write down a
// new term at once, an index within 50 ticks. A replica that has state shows at
// its start what it finds: its term and the end of its log. Whoever has seen it
// further says so, and then it stays silent for good ('x'), is reported lost, and
// gets a successor with a new id.
//
// It takes part when all others have answered, or when a majority has and those
// that are missing are down by the map or have been waited for for 100 ticks (10
// s): a restart needs no more than a majority. The majority is of the configuration
// on its disk, or, once the map says that its own list has come into force, of that
// one: those of before may be gone for good. The bound of what is noticed: an
// old copy gets through only if whoever saw it further is away for all of that
// start, or was cut off itself before it wrote that down. That takes
// two faults at once; one is always noticed.
//
// # Leadership
//
// Pre-vote and check-quorum are on: a replica cut off does not disturb the
// others, and a leader without a majority steps down within an election
// timeout, which turns its callers away as Unavailable. The first replica of
// the map's list is preferred: it offers itself early, and other leaders hand
// over to it once it keeps up. A clean stop hands leadership over first.
//
// # Bounds
//
// Transactions under way are bounded in bytes by host and by shard, messages
// by number and, through raft's windows, in bytes by follower; beyond that
// calls are Busy and messages are dropped. The log keeps the last 8192 entries
// or 16 MiB of a shard, up to twice that, and whoever lags further behind gets a
// snapshot in chunks, two at a time from one host. Half a MiB of the newest
// entries stays in memory. Request ids take 2 to 4 bytes each in a filter for
// 10 to 20 minutes; the answers themselves are on disk.
//
// # Changing replicas
//
// The map says which replicas a shard should have; raft decides who has a vote.
// A leader whose voters differ from the map's list goes there in steps:
//
//  1. it asks the new replica whether it is born, and waits: so an id that is in
//     the log is never born a second time;
//  2. it adds it as a learner and waits until it keeps up;
//  3. if it is to go itself, it hands its leadership to one that stays;
//  4. one joint change swaps the new for the old.
//
// Why no two configurations can decide apart from one another: raft applies one
// change at a time, from the configuration that is committed, and a joint change
// needs majorities of both lists until it is over. The map's lists carry an order
// (Moved), which travels in the changes and is kept with the state: a leader that
// follows an older list than the one in force changes nothing, so nobody is voted
// in again who was swapped out. A live majority is never taken away: a list is
// written only when the leader reports the last one as committed, and differs
// from it in one replica (placement/state says more).
//
// A replica that no list names any more, and whose id the map knows as given
// out, is stopped and its data removed. The placement takes a replica off the
// lists only after a leader has reported a committed configuration without it,
// and a leader reports it only when a majority has it on disk that the change is
// over (led.go): else the loss of that leader would leave nobody who can win
// without the one that was removed.
package replica
