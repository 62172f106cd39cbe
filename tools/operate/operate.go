// Package operate is what an operator asks of the metadata of a running cluster
// beyond its health: what garbage there is, why space is held, what a bucket may
// hold, which events wait for whom.
//
// The questions are answered from the rows and the disks, through the clients
// that gateways use. Do runs one by its name and returns JSON, so that the
// `ashlar` command can ask a cluster of real hosts itself (Dial), and the admin
// endpoint of a dev cluster whose hosts listen on no port.
package operate

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"ashlar"
	"ashlar/daemon/client"
	"ashlar/daemon/meta"
	"ashlar/daemon/wire"
	placement "ashlar/placement/client"
	"ashlar/placement/topology"
)

// Cluster is how a running cluster is reached.
type Cluster struct {
	Maps   func() *topology.Map
	Meta   meta.Store
	Pieces func(ashlar.HostID) (wire.Pieces, error)
	// Release lets what is newer than a backup be freed.
	Release func(ctx context.Context, backup ashlar.ID) error
}

// The questions that Do knows.
const (
	GarbageStatus  = "gc status"
	GarbageExplain = "gc explain" // WHAT
	GarbageRelease = "gc release"
	BucketQuota    = "bucket quota" // BUCKET, or QuotaArgs
	NotifyStatus   = "notify status"
)

const (
	// CallMax bounds one question.
	CallMax = time.Minute
	// mapMax bounds the wait for the placement quorum.
	mapMax = 15 * time.Second
)

// Do answers a question with JSON.
func Do(ctx context.Context, c *Cluster, question string, args []string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, CallMax)
	defer cancel()
	var answer any
	var err error
	switch {
	case question == GarbageStatus:
		answer, err = c.garbage(ctx)
	case question == GarbageExplain && len(args) == 1:
		answer, err = c.explain(ctx, args[0])
	case question == BucketQuota && (len(args) == 1 || len(args) == 3):
		answer, err = c.quota(ctx, args)
	case question == NotifyStatus:
		answer, err = c.notifications(ctx)
	case question == GarbageRelease:
		answer, err = c.release(ctx)
	default:
		err = fmt.Errorf("question %q with %d arguments is not known here", question, len(args))
	}
	if err != nil {
		return nil, err
	}
	return json.Marshal(answer)
}

// Dial reaches a cluster through its placement members. Call the function that
// comes with it when done.
func Dial(ctx context.Context, members []string) (*Cluster, func(), error) {
	place, err := placement.New(placement.Config{Members: members, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, nil, err
	}
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{}) // closed when the watch has ended
	go func() { defer close(done); place.Run(run) }()
	hosts := client.NewHosts(place.Map)
	end := func() {
		stop()
		<-done
		hosts.Close()
		place.Close()
	}
	wait, cancel := context.WithTimeout(ctx, mapMax)
	defer cancel()
	if _, err := place.Wait(wait, func(m *topology.Map) bool { return m.Formed() }); err != nil {
		end()
		return nil, nil, fmt.Errorf("no map of a formed cluster from %v: %w", members, err)
	}
	return &Cluster{Maps: place.Map, Meta: client.NewMeta(place.Map, hosts.Shards), Pieces: hosts.Pieces, Release: place.Release}, end, nil
}
