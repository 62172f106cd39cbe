package smart

import (
	"fmt"
	"strings"
	"time"
)

// Unknown is a number that the disk does not report.
const Unknown = -1

// Facts are what a disk said of itself.
type Facts struct {
	Version  int       `json:"version"`
	Serial   string    `json:"serial"`
	Model    string    `json:"model"`
	Protocol string    `json:"protocol"` // ATA, SCSI or NVMe
	Taken    time.Time `json:"taken"`
	// Failing is the disk's own verdict: it expects to fail, and Verdict says in
	// what words.
	Failing bool   `json:"failing"`
	Verdict string `json:"verdict,omitempty"`
	// Sectors that were replaced by spare ones, that wait to be, and that could
	// not be read or written: the disk's own counts, or Unknown.
	Reallocated   int64 `json:"reallocated"`
	Pending       int64 `json:"pending"`
	Uncorrectable int64 `json:"uncorrectable"`
	// LinkCRC counts transfers damaged between disk and host: a cable, not a disk.
	LinkCRC int64 `json:"link_crc"`
	// Wear is the percentage of the life for writes that is used up; it may
	// exceed 100. Temperature is in degrees Celsius.
	Wear        int64 `json:"wear_percent"`
	Temperature int64 `json:"temperature"`
}

// Limits beyond which a number alone is worth a person's time.
const (
	wearMax        = 95
	temperatureMax = 70
	reallocatedMax = 100
)

// Concerns says what of the facts wants action, the gravest first; nothing if all
// is well.
func (f *Facts) Concerns() []string {
	var all []string
	add := func(holds bool, format string, args ...any) {
		if holds {
			all = append(all, fmt.Sprintf(format, args...))
		}
	}
	verdict := f.Verdict
	if verdict == "" {
		verdict = "its self-assessment fails"
	}
	add(f.Failing, "it expects to fail: %s", verdict)
	add(f.Pending > 0, "%d sectors cannot be read and wait to be replaced", f.Pending)
	add(f.Uncorrectable > 0, "%d errors were beyond repair", f.Uncorrectable)
	add(f.Reallocated > reallocatedMax, "%d sectors were replaced", f.Reallocated)
	add(f.Wear >= wearMax, "%d %% of its life for writes is used up", f.Wear)
	add(f.Temperature >= temperatureMax, "it has %d °C", f.Temperature)
	return all
}

// Summary is the six numbers in a line, for lists; a number that is not reported
// is left out.
func (f *Facts) Summary() string {
	var parts []string
	for _, n := range []struct {
		value int64
		unit  string
	}{
		{f.Reallocated, "reallocated"}, {f.Pending, "pending"}, {f.Uncorrectable, "uncorrectable"}, {f.LinkCRC, "link CRC"},
		{f.Wear, "% worn"}, {f.Temperature, "°C"},
	} {
		if n.value != Unknown {
			parts = append(parts, fmt.Sprintf("%d %s", n.value, n.unit))
		}
	}
	text := strings.Join(parts, ", ")
	if f.Failing {
		text = strings.TrimSuffix("FAILING, "+text, ", ")
	}
	return text
}
