package health

import "ashlar/placement/topology"

// Judge computes the status. It keeps neither m nor f.
func Judge(m *topology.Map, f Facts) Status {
	return Status{Cluster: m.Name, Epoch: m.Epoch, Formed: m.Formed()}
}
