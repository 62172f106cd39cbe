package daemon

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ashlar"
	"ashlar/daemon/wire"
)

// TestALostIndexIsRebuiltAndSaidSo: the start says how far it has come, and the
// pieces are there again.
func TestALostIndexIsRebuiltAndSaidSo(t *testing.T) {
	d := testDisks(t, 2)
	if err := openDisks(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	lost := d.slots[1]
	p := &wire.Piece{PieceID: wire.PieceID{Stripe: ashlar.StripeID{1}}, Disk: lost.id, Code: ashlar.Code{K: 1, M: 2}, StripeBytes: 5, Data: []byte("hello")}
	if err := d.pieces.PutPiece(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	name := lost.name
	d = d.again(t)
	if err := os.RemoveAll(filepath.Join(d.cfg.Dir, "index", lost.id.String())); err != nil {
		t.Fatal(err)
	}
	var told []string
	d.status = func(text string) { told = append(told, text) }
	if err := openDisks(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if want := "rebuilding lost indexes: " + name + " 100 %"; !slices.Contains(told, want) {
		t.Errorf("told %q, not %q", told, want)
	}
	for _, text := range told {
		if strings.Contains(text, d.slots[0].name) {
			t.Errorf("the index of the other disk was there: %q", text)
		}
	}
	got := make([]byte, 5)
	if err := d.pieces.GetPiece(t.Context(), wire.PieceRange{PieceID: p.PieceID, Disk: lost.id}, got); err != nil || string(got) != "hello" {
		t.Errorf("%q, %v", got, err)
	}
}
