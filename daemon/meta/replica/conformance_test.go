package replica

import (
	"testing"

	"ashlar/daemon/meta"
	"ashlar/daemon/meta/metatest"
)

func TestConformanceOneReplica(t *testing.T) {
	metatest.Run(t, func(t *testing.T) meta.Store {
		c := newCluster(t, 1, 2, 1, false)
		c.startAll()
		return c.store()
	})
}

func TestConformanceThreeHosts(t *testing.T) {
	metatest.Run(t, func(t *testing.T) meta.Store {
		c := newCluster(t, 3, 2, 3, false)
		c.startAll()
		return c.store()
	})
}

func TestConformanceOverGRPC(t *testing.T) {
	metatest.Run(t, func(t *testing.T) meta.Store {
		c := newCluster(t, 3, 2, 3, false)
		c.overGRPC = true
		c.startAll()
		return c.store()
	})
}
