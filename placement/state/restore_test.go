package state

import (
	"testing"
	"time"

	"ashlar"
	"ashlar/placement/topology"
)

// TestRestore brings the map of a backup into a new quorum.
func TestRestore(t *testing.T) {
	now, created := time.Unix(2e9, 0), time.Unix(1e9, 0)
	backup, run := ashlar.ID{1}, ashlar.ID{2}
	saved := &topology.Map{
		Cluster: ashlar.ClusterID{7}, Epoch: 90, Groups: make([]topology.Group, 1), Shards: make([]topology.Shard, 1),
		Hosts: []topology.Host{{ID: 1, Name: "a", State: topology.HostUp}}, NextHost: 2, NextReplica: 4,
	}
	s := New(Config{Cluster: ashlar.ClusterID{9}, Shards: 1, ExpectHosts: 1}, nil, now)
	refused := func(what string, kind ashlar.Kind, err error) {
		t.Helper()
		if !ashlar.Is(err, kind) {
			t.Errorf("%s: %v", what, err)
		}
	}
	refused("a backup of no time", ashlar.Invalid, s.Restore(now, time.Time{}, backup, run, saved))
	refused("a cluster that was not restored", ashlar.Denied, s.Release(ashlar.ID{}))
	for range 2 { // asking again is safe
		if err := s.Restore(now, created, backup, run, saved); err != nil {
			t.Fatal(err)
		}
	}
	m := s.Pending()
	want := topology.Restore{Backup: backup, Run: run, Shards: 1, Importing: true, Created: created, Adopted: now}
	if m.Cluster != saved.Cluster || m.Formed() || m.Restore != want || m.Hosts[0].State != topology.HostDown {
		t.Errorf("%+v", m)
	}
	// What was given out between the backup and the loss is not known.
	const unseen = 100_000_000
	if m.Epoch < saved.Epoch+unseen || m.NextReplica < saved.NextReplica+unseen || m.NextHost < saved.NextHost+10_000 || m.Groups[0].Moved != m.Epoch {
		t.Errorf("epoch %d, replica %d, host %v, groups of %d", m.Epoch, m.NextReplica, m.NextHost, m.Groups[0].Moved)
	}
	s.Written()
	refused("another backup", ashlar.Denied, s.Restore(now, created, ashlar.ID{3}, run, saved))
	if _, err := s.Heartbeat(now, Heartbeat{Cluster: saved.Cluster, Name: "a", Zone: "z", Boot: ashlar.BootID{1}}); err != nil {
		t.Fatal(err)
	}
	refused("rows that are not back", ashlar.Denied, s.Release(backup))
	for range 2 {
		if err := s.Restored(backup); err != nil {
			t.Fatal(err)
		}
	}
	if m := s.Map(); !m.Formed() || !m.Restore.Created.Equal(created) {
		t.Errorf("%+v", m.Restore)
	}
	refused("another backup", ashlar.Denied, s.Release(ashlar.ID{3}))
	for range 2 {
		if err := s.Release(backup); err != nil {
			t.Fatal(err)
		}
	}
	if r := s.Map().Restore; !r.Created.IsZero() || r.Run != run {
		t.Errorf("%+v", r)
	}
}
