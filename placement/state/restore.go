package state

import (
	"fmt"
	"time"

	"ashlar"
	"ashlar/placement/topology"
)

// The gaps lie between what a backup knows as given out and what is given out
// after it was restored: what was given out in between is not known, and a party
// that still holds it must not be taken for a newer one, nor for another.
const (
	epochGap     = 1 << 32
	replicaIDGap = 1 << 32
	hostIDGap    = 1 << 16
)

// Restore takes the map of a backup over, if there is no cluster yet: no host
// and no table. Hosts keep their ids, disks their numbers, groups their disks; the
// shards get new replicas once the hosts are here, and the cluster is not formed
// until Restored is told that the rows are back. The name of the run is kept from
// the first call; repeating it changes nothing. A cluster that has something is
// Denied. Created is as of when the backup is.
func (s *Machine) Restore(now, created time.Time, backup, run ashlar.ID, m *topology.Map) error {
	have := s.Map()
	if have.Restore.Importing && have.Restore.Backup == backup {
		return nil
	}
	bad := func(kind ashlar.Kind, format string, args ...any) error {
		return ashlar.E("placement: restore", backup.String(), kind, fmt.Errorf(format, args...))
	}
	switch {
	case len(have.Hosts) > 0 || have.Laid() || have.Restore.Importing:
		return bad(ashlar.Denied, "the cluster is not empty (%d hosts): a backup is restored into a new quorum, before any daemon has joined", len(have.Hosts))
	case !m.Laid() || backup.IsZero() || run.IsZero() || created.IsZero():
		return bad(ashlar.Invalid, "the backup holds no formed cluster")
	}
	next := m.Clone()
	next.Restore = topology.Restore{
		Backup: backup, Run: run, Shards: uint32(len(m.Shards)), Importing: true, Created: created.Round(0), Adopted: now.Round(0),
	}
	next.Shards = nil
	next.NextReplica += replicaIDGap
	next.NextHost += hostIDGap
	for i := range next.Hosts {
		h := &next.Hosts[i]
		h.State, h.Since, h.Boot = topology.HostDown, now.Round(0), ashlar.BootID{}
	}
	for i := range next.Groups {
		next.Groups[i].Moved = m.Epoch + epochGap // whoever has a map of before asks for a new one
	}
	s.next = next
	s.restored = m.Epoch + epochGap // maps go on from there
	s.numbers = make(map[ashlar.DiskID]int, len(next.Disks))
	for i, d := range next.Disks {
		s.numbers[d.ID] = i
	}
	return nil
}

// Restored says that all rows of the backup are back. Repeating it is no error.
func (s *Machine) Restored(backup ashlar.ID) error {
	m := s.Map()
	if m.Restore.Backup != backup || !m.Laid() {
		return ashlar.E("placement: restore", backup.String(), ashlar.Denied, fmt.Errorf("this backup is not being restored here"))
	}
	if m.Restore.Importing {
		s.edit().Restore.Importing = false
	}
	return nil
}

// Release says that what was written after the backup, and has no row in it, may
// be freed. Repeating it is no error.
func (s *Machine) Release(backup ashlar.ID) error {
	m := s.Map()
	if m.Restore.Backup != backup || backup.IsZero() || !m.Formed() {
		return ashlar.E("placement: release", backup.String(), ashlar.Denied, fmt.Errorf("the cluster was not restored from this backup"))
	}
	if !m.Restore.Created.IsZero() {
		r := &s.edit().Restore
		r.Created, r.Adopted = time.Time{}, time.Time{}
	}
	return nil
}

// layRestored gives the shards of a backup replicas when the expected hosts are
// here. It reports whether a restore is under way.
func (s *Machine) layRestored() bool {
	m := s.Map()
	switch {
	case !m.Restore.Importing:
		return false
	case m.Laid():
		s.forming = "a backup is being restored"
		return true
	}
	up := 0
	for _, h := range m.Hosts {
		if h.State == topology.HostUp {
			up++
		}
	}
	s.forming = fmt.Sprintf("a backup is being restored: %d of %d hosts are here", up, s.cfg.ExpectHosts)
	if up < s.cfg.ExpectHosts {
		return true
	}
	if err := s.layShards(int(m.Restore.Shards)); err != nil {
		s.forming = reason(err)
	}
	return true
}
