package diskmgr_test

import (
	"bytes"
	"errors"
	"testing"

	"ashlar"
	"ashlar/diskmgr/blockdev"
	"ashlar/diskmgr/label"
)

// A log of the device's former life would be found at the ends of the data area
// and refused as that of another disk.
func TestAClaimAfterAWipeFindsNoFormerLife(t *testing.T) {
	onAll(t, func(t *testing.T, path, _ string) {
		d := claim(t, path, options())
		old := blockdev.Aligned(64 * ashlar.KiB)
		for i := range old {
			old[i] = 0x5a
		}
		ends := []int64{0, d.Device().Bytes() - int64(len(old))}
		for _, off := range ends {
			if _, err := d.Device().WriteAt(old, off); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(d.Device().Flush(), d.Close()); err != nil {
			t.Fatal(err)
		}
		dev, err := blockdev.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(label.Wipe(dev), dev.Close()); err != nil {
			t.Fatal(err)
		}
		d = claim(t, path, options())
		for _, off := range ends {
			if _, err := d.Device().ReadAt(old, off); err != nil || bytes.Count(old, []byte{0}) != len(old) {
				t.Errorf("at %#x the former bytes are there: %v", off, err)
			}
		}
	})
}
