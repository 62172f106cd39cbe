package daemon

import (
	"os"
	"path/filepath"
	"testing"

	"ashlar"
	"ashlar/daemon/wire"
	"ashlar/diskmgr/blockdev"
)

func move(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func aPiece(disk ashlar.DiskID) *wire.Piece {
	return &wire.Piece{PieceID: wire.PieceID{Stripe: ashlar.StripeID{1}}, Disk: disk, Code: ashlar.Code{K: 1, M: 2}, StripeBytes: 5, Data: []byte("hello")}
}

func (d *disks) wantPiece(t *testing.T, p *wire.Piece) {
	t.Helper()
	got := make([]byte, 5)
	if err := d.pieces.GetPiece(t.Context(), wire.PieceRange{PieceID: p.PieceID, Disk: p.Disk}, got); err != nil || string(got) != "hello" {
		t.Errorf("the piece of disk %v: %q, %v", p.Disk, got, err)
	}
}

// TestDisksInAnotherOrderAreTheSameDisks, fault 22: the names of two devices are exchanged
// and a third appears, as after a change of cables.
func TestDisksInAnotherOrderAreTheSameDisks(t *testing.T) {
	for _, globbed := range []bool{false, true} {
		d := testDisks(t, 2)
		if err := openDisks(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		first, second := aPiece(d.slots[0].id), d.slots[1].id
		if err := d.pieces.PutPiece(t.Context(), first); err != nil {
			t.Fatal(err)
		}
		d = d.again(t)
		a, b := d.cfg.Disks[0], d.cfg.Disks[1]
		move(t, a, a+".x")
		move(t, b, a)
		move(t, a+".x", b)
		d.cfg.ClaimBlank = false
		if globbed {
			dir := filepath.Dir(a)
			if err := blockdev.Create(filepath.Join(dir, "9.disk"), testDiskBytes, true); err != nil {
				t.Fatal(err)
			}
			d.cfg.Disks = []string{filepath.Join(dir, "*.disk")}
		}
		if err := openDisks(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		if len(d.slots) != 2 || d.slots[1].id != first.Disk || d.slots[0].id != second {
			t.Fatalf("globbed %v: %d disks, other ones", globbed, len(d.slots))
		}
		if d.slots[1].name != "h/d01" || d.slots[0].name != "h/d02" {
			t.Errorf("the names did not move along: %s %s", d.slots[0].name, d.slots[1].name)
		}
		d.wantPiece(t, first)
	}
}

// TestAPulledDiskIsTakenBackWhereverItIs but not one that failed in its place.
func TestAPulledDiskIsTakenBackWhereverItIs(t *testing.T) {
	d := testDisks(t, 2)
	if err := openDisks(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.close)
	s := d.slots[0]
	p := aPiece(s.id)
	if err := d.pieces.PutPiece(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	here := s.path
	d.cfg.Disks = []string{here, d.slots[1].path, filepath.Join(filepath.Dir(here), "*.moved")}
	look := func(wantFailed bool) {
		t.Helper()
		d.seek(t.Context(), s, seekEvery)
		if r, _ := s.report(); r.Failed != wantFailed || r.ID != p.Disk {
			t.Fatalf("disk %v, failed %v: %s", r.ID, r.Failed, r.Reason)
		}
	}
	d.retire(s, "a flush failed")
	look(true)
	look(true) // it is still there: nobody has touched it
	move(t, here, here+".away")
	look(true)
	move(t, here+".away", here)
	look(false)
	d.wantPiece(t, p)

	d.retire(s, "pulled") // and put back under another name, at once
	move(t, here, here+".moved")
	look(false)
	if s.path != here+".moved" {
		t.Errorf("it was taken from %s", s.path)
	}
	d.wantPiece(t, p)

	d.retire(s, "exchanged")
	d.retire(d.slots[1], "exchanged")
	s.path = d.slots[1].path
	if err := d.open(t.Context(), s); !ashlar.Is(err, ashlar.Stale) {
		t.Errorf("another disk was taken for it: %v", err)
	}
}
