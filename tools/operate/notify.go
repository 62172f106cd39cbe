package operate

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"ashlar/s3gw/store"
)

// Notifications is the answer to NotifyStatus: what waits for the targets of events.
type Notifications struct {
	Targets []Waiting `json:"targets"`
}

// Waiting is what waits for one target.
type Waiting struct {
	Target  string `json:"target"`
	Pending int64  `json:"pending"`
	Lost    int64  `json:"lost"`
	// Oldest is when the oldest event that waits happened; zero: none waits.
	Oldest time.Time `json:"oldest,omitzero"`
}

func (c *Cluster) notifications(ctx context.Context) (*Notifications, error) {
	s := store.New(c.Meta, nil, c.Maps, store.Options{})
	defer s.Close()
	queues, err := s.Queues(ctx)
	if err != nil {
		return nil, err
	}
	n := &Notifications{Targets: []Waiting{}}
	for _, q := range queues {
		n.Targets = append(n.Targets, Waiting{Target: q.Target, Pending: q.Pending, Lost: q.Lost, Oldest: q.Oldest})
	}
	return n, nil
}

// Render prints it for people.
func (n *Notifications) Render(w io.Writer) error {
	if len(n.Targets) == 0 {
		_, err := fmt.Fprintln(w, "No event was queued yet.")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "TARGET\tPENDING\tOLDEST\tLOST")
	for _, q := range n.Targets {
		oldest := "-"
		if !q.Oldest.IsZero() {
			oldest = q.Oldest.UTC().Format(time.DateTime)
		}
		fmt.Fprintf(t, "%s\t%d\t%s\t%d\n", q.Target, q.Pending, oldest, q.Lost)
	}
	return t.Flush()
}
