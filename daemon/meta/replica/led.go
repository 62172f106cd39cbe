package replica

import (
	"slices"

	"ashlar"
)

// Led returns the shards that this host leads now, in order. It is a hint: a
// leader may be deposed at any moment.
func (h *Host) Led() []ashlar.ShardID {
	var led []ashlar.ShardID
	for id, r := range *h.shards.Load() {
		if r.leading.Load() {
			led = append(led, id)
		}
	}
	slices.Sort(led)
	return led
}
