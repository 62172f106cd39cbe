package replica

import (
	"fmt"
	"testing"

	"ashlar"
)

// Connections and streams between the hosts come back with the hosts.
func TestHostsComeBackOverSockets(t *testing.T) {
	c := newCluster(t, 3, 1, 3, false)
	c.overGRPC, c.logKeep = true, 20
	c.startAll()
	store := c.store()
	mustCommit(t, store, simplePut("k", "first"))
	for round := range 6 {
		victim := ashlar.HostID(round%3 + 1)
		c.kill(victim)
		for i := range 50 { // beyond the log: the victim needs a snapshot
			mustCommit(t, store, simplePut(fmt.Sprint("k", i), fmt.Sprint(round)))
		}
		c.start(victim)
		mustRead(t, store, "k49", fmt.Sprint(round))
		waitSame(t, c, 0)
	}
}
