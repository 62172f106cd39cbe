package segment

import "testing"

// TestNothingToFreeIsNoAnswerToWhoAskedLater: a look at the segments that began before
// somebody asked does not tell them that there is no room to be had.
func TestNothingToFreeIsNoAnswerToWhoAskedLater(t *testing.T) {
	var r room
	before := r.asked()
	mine := r.join()
	r.end(before, false)
	if isClosed(mine.over) {
		t.Error("ended by a look that began before it was asked for")
	}
	r.end(r.asked(), true)
	if !isClosed(mine.over) || !mine.freed {
		t.Error("not ended by a segment that was given back")
	}
	if r.asked() != nil {
		t.Error("somebody waits still")
	}
}
