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
//	'k' replica peer(8)                  the peer has spoken to this replica
//	'a' replica                          applied index and what belongs to it
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
// state asks all the others that the map names and starts only when each has
// answered:
//
//   - somebody has heard it before: its data is lost. It stays silent, logs
//     meta-replica-lost, and the shard lives on with the others until the
//     placement gives it a replica with a new id;
//   - somebody was born already, with this replica among the first voters:
//     it is born with the same voters;
//   - somebody was born without it: it was added later. It is born knowing
//     nobody and waits for the leader's snapshot;
//   - nobody is born, and all name the same replicas: they are born with those.
//
// The price is that a shard starts for the first time only when all its
// replicas are up (a restart needs a majority only). What the rule cannot see
// is the loss of every replica that heard the asker: then more was lost than
// the code tolerates, and only a note in the map could tell. A shard with one
// replica has nobody to ask and is born at once.
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
// A leader whose voters differ from the map's adds the new ones as learners,
// waits until they keep up, and swaps them for the old ones in one joint change.
// The data of a replica that was swapped out is not removed yet.
package replica
