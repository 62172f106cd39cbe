// Package health decides how a disk feels. It is a pure state machine: no
// clock, no device, no goroutine. The caller tells it when each I/O began and
// how it ended, and ticks it; it answers with a state and the reason in words.
//
//	Good ⇄ Suspect      slow against its own baseline and its peers, or many
//	                    unreadable places: reads avoid it, new data goes elsewhere
//	  │       │
//	  └───────┴──▶ Fenced   no more writes; what is on it may still be read
//	               │
//	               └──▶ Failed   no I/O at all
//
// Fenced and Failed are final for this opening of the disk. The way back is to
// open it again and to recover its log from what is really on it.
//
//	event                                              new state
//	a flush fails, once                                Fenced   the next flush would lie
//	the device refuses writes (read-only)              Fenced
//	another owner took the disk                        Fenced
//	WriteErrorsMax failed writes within ErrorWindow    Fenced
//	ErrorsInRowMax failed reads or writes at different
//	places with no success between them                Failed
//	the device is gone (ENXIO, ENODEV)                 Failed
//	an I/O has not ended after HangAfter               Failed
//	ReadErrorsMax failed reads within ErrorWindow      Suspect  (while they are that many)
//	SlowWindowsMax slow windows in a row               Suspect  (until FastWindowsMin fast ones)
//
// Two failures are at different places if the ranges that were read or written
// do not overlap: one bad sector may fail any number of I/Os around it.
//
// A window is WindowLength of I/O of one kind with at least WindowOpsMin ends. It
// is slow when its 95th percentile exceeds each of SlowFloor, SlowBaseline times
// the 99th percentile measured at claim, and SlowPeers times the median of the
// 95th percentiles of the disk's peers; what is not known does not count.
package health
