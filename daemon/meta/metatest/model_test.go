package metatest

import (
	"testing"

	"ashlar/daemon/meta"
)

func TestModel(t *testing.T) {
	Run(t, func(*testing.T) meta.Store { return NewModel() })
}
