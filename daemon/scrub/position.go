package scrub

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"ashlar"
	"ashlar/segment"
)

const (
	positionVersion = 1
	// parts is the number of stretches of a disk whose age is known.
	parts = 256
	// positionBytesMax bounds the file that is read.
	positionBytesMax = ashlar.MiB
)

// position is what is stored of the scrub of a disk.
type position struct {
	Version  int           `json:"version"`
	Disk     ashlar.DiskID `json:"disk"`
	Segments int           `json:"segments"`
	// Since is when the disk was first scrubbed, Pass when the pass under way was
	// due to begin, Next its next segment, Last the end of the last full pass.
	Since time.Time `json:"since"`
	Pass  time.Time `json:"pass"`
	Next  int       `json:"next"`
	Last  time.Time `json:"last"`
	// Read says when each part of the disk was last read to its end, zero for
	// never. Hole: a segment of the part under way could not be read.
	Read [parts]time.Time `json:"read"`
	Hole bool             `json:"hole"`
	// Bytes of good records since Since.
	Bytes uint64 `json:"bytes"`
	// Now counts in the pass under way, Before in the one that ended last.
	Now     tally     `json:"now"`
	Before  tally     `json:"before"`
	Waiting []waiting `json:"waiting"`
}

// tally is what a pass came to.
type tally struct {
	Repaired uint64 `json:"repaired"`
	Gone     uint64 `json:"gone"`
	Flips    uint64 `json:"flips"`
	Unread   uint64 `json:"unread"`
}

// waiting is the key of a piece that was reported, as 34 hexadecimal digits.
type waiting string

func waitingOf(k segment.Key) waiting {
	return waiting(hex.EncodeToString(append(append([]byte{}, k.Stripe[:]...), k.Piece)))
}

func (w waiting) key() (k segment.Key) {
	b, _ := hex.DecodeString(string(w)) // check has looked at it
	k.Piece = b[copy(k.Stripe[:], b)]
	return k
}

// wait files a piece and reports whether it is new.
func (p *position) wait(key segment.Key) bool {
	w := waitingOf(key)
	for _, other := range p.Waiting {
		if other == w {
			return false
		}
	}
	if len(p.Waiting) < waitingMax {
		p.Waiting = append(p.Waiting, w)
	}
	return true
}

// due is when segment i is to be read.
func (p *position) due(i int, period time.Duration) time.Time {
	return p.Pass.Add(time.Duration(float64(period) * float64(i) / float64(max(p.Segments, 1))))
}

func (p *position) part(segment int) int { return segment * parts / max(p.Segments, 1) }

// passed notes that the next segment was read.
func (p *position) passed(now time.Time) {
	first := p.part(p.Next)
	p.Next++
	last := p.part(p.Next)
	for i := first; i < last && !p.Hole; i++ {
		p.Read[i] = now.UTC().Round(0)
	}
	if last > first {
		p.Hole = false
	}
}

// endPass begins the next pass.
func (p *position) endPass(now time.Time, period time.Duration) {
	p.Last, p.Next = now.UTC().Round(0), 0
	p.Before, p.Now = p.Now, tally{}
	if p.Pass = p.Pass.Add(period); p.Pass.Before(now) {
		p.Pass = now.UTC().Round(0)
	}
}

// oldest is a time after which every part of the disk was read.
func (p *position) oldest() time.Time {
	oldest := p.Read[0]
	for _, t := range p.Read {
		if t.Before(oldest) {
			oldest = t
		}
	}
	if oldest.Before(p.Since) {
		return p.Since // nothing could be read before
	}
	return oldest
}

func (d *disk) path() string { return filepath.Join(d.cfg.Dir, d.disk.ID.String()+".json") }

// load reads the position of the disk, or begins anew.
func (d *disk) load() *position {
	now := d.cfg.clock.now().UTC().Round(0)
	segments := d.disk.Log.Usage().SegmentsTotal
	p, err := readPosition(d.path())
	if err == nil {
		err = p.check(d.disk.ID, segments, now)
	}
	if err == nil {
		if p.Pass.After(now.Add(d.cfg.Period)) {
			p.Pass = now // the period was longer
		}
		return p
	}
	if !errors.Is(err, fs.ErrNotExist) {
		d.log.Warn("scrub: the position is lost, a pass begins anew", "cause", err)
	}
	return &position{Version: positionVersion, Disk: d.disk.ID, Segments: segments, Since: now, Pass: now}
}

func readPosition(path string) (*position, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > positionBytesMax {
		return nil, fmt.Errorf("%s has %d bytes", path, info.Size())
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	p := &position{}
	return p, json.Unmarshal(b, p)
}

// check refuses a position that is not this disk's or makes no sense.
func (p *position) check(id ashlar.DiskID, segments int, now time.Time) error {
	switch {
	case p.Version != positionVersion:
		return fmt.Errorf("version %d, this is %d", p.Version, positionVersion)
	case p.Disk != id:
		return fmt.Errorf("it is that of disk %v", p.Disk)
	case p.Segments != segments:
		return fmt.Errorf("it is that of a disk with %d segments, this one has %d", p.Segments, segments)
	case p.Next < 0 || p.Next > p.Segments || len(p.Waiting) > waitingMax:
		return fmt.Errorf("segment %d of %d, %d pieces wait", p.Next, p.Segments, len(p.Waiting))
	case p.Since.After(now):
		return fmt.Errorf("it is of %v, which is to come", p.Since)
	}
	for _, w := range p.Waiting {
		if b, err := hex.DecodeString(string(w)); err != nil || len(b) != len(segment.Key{}.Stripe)+1 {
			return fmt.Errorf("%q is no piece", w)
		}
	}
	return nil
}

func (d *disk) saveNowAndThen() {
	if now := d.cfg.clock.now(); now.Sub(d.saved) >= saveGap {
		d.save()
	}
}

// save replaces the position on disk. A failure costs the way back to the last one.
func (d *disk) save() {
	d.saved = d.cfg.clock.now()
	if err := writePosition(d.path(), d.pos); err != nil {
		d.log.Warn("scrub: the position is not saved", "cause", err)
	}
}

func writePosition(path string, p *position) error {
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "position-*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}
