package placement

import "go.etcd.io/etcd/client/pkg/v3/types"

// Cut makes the member and the named others deaf to one another, as a cut
// network would, for the engine's traffic. Call it on both sides.
func (m *Member) Cut(others ...string) { m.links(others, m.etcd.Server.CutPeer) }

// Mend undoes Cut.
func (m *Member) Mend(others ...string) { m.links(others, m.etcd.Server.MendPeer) }

func (m *Member) links(others []string, do func(types.ID)) {
	for _, name := range others {
		if id, ok := m.memberID(name); ok && name != m.cfg.Name {
			do(types.ID(id))
		}
	}
}
