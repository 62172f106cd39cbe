package smart

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"ashlar"
)

// output is what of smartctl's JSON is looked at. Everything may be missing.
type output struct {
	Smartctl struct {
		ExitStatus int `json:"exit_status"`
		Messages   []struct {
			String   string `json:"string"`
			Severity string `json:"severity"`
		} `json:"messages"`
	} `json:"smartctl"`
	Device struct {
		Protocol string `json:"protocol"`
	} `json:"device"`
	Model       string `json:"model_name"`
	ScsiModel   string `json:"scsi_model_name"`
	Serial      string `json:"serial_number"`
	SmartStatus *struct {
		Passed *bool `json:"passed"`
		Scsi   struct {
			Words string `json:"ie_string"`
		} `json:"scsi"`
	} `json:"smart_status"`
	Temperature struct {
		Current *number `json:"current"`
	} `json:"temperature"`
	Endurance struct {
		Percent *number `json:"current_percent"`
	} `json:"endurance_used"`
	Attributes struct {
		Table []attribute `json:"table"`
	} `json:"ata_smart_attributes"`
	Nvme *struct {
		CriticalWarning number  `json:"critical_warning"`
		PercentageUsed  *number `json:"percentage_used"`
		MediaErrors     *number `json:"media_errors"`
		Temperature     *number `json:"temperature"`
	} `json:"nvme_smart_health_information_log"`
	Grown   *number `json:"scsi_grown_defect_list"`
	Pending struct {
		Count *number `json:"count"`
	} `json:"scsi_pending_defects"`
	ScsiEndurance *number `json:"scsi_percentage_used_endurance_indicator"`
	Errors        map[string]struct {
		Uncorrected *number `json:"total_uncorrected_errors"`
	} `json:"scsi_error_counter_log"`
}

type attribute struct {
	ID         int    `json:"id"`
	Name       string `json:"name"`
	Value      number `json:"value"`
	WhenFailed string `json:"when_failed"`
	Raw        struct {
		Value number `json:"value"`
	} `json:"raw"`
}

// number is a count, however it is written: NVMe counts in 128 bits, which
// smartctl prints as a number where it fits, and else as a string beside it.
type number int64

func (n *number) UnmarshalJSON(b []byte) error {
	var f float64
	if err := json.Unmarshal(b, &f); err != nil {
		return err
	}
	switch {
	case f < 0:
		*n = 0 // no count is; some firmware says so of a temperature
	case f >= math.MaxInt64:
		*n = math.MaxInt64
	default:
		*n = number(f)
	}
	return nil
}

func or(values ...*number) int64 {
	for _, v := range values {
		if v != nil {
			return int64(*v)
		}
	}
	return Unknown
}

// notAsked are the bits of smartctl's exit status that mean that the disk was not
// asked: bad arguments, and a device that could not be opened. The others speak of
// the disk, and are said better in the output.
const notAsked = 1<<0 | 1<<1

// Parse reads the output of smartctl --json --all, of ATA,
// SCSI and NVMe disks. Kinds: Unavailable if smartctl could not ask the disk, in
// its own words; Invalid if this is not its output.
func Parse(p []byte) (Facts, error) {
	const op = "smart: parse"
	var o output
	if err := json.Unmarshal(p, &o); err != nil {
		return Facts{}, ashlar.E(op, "", ashlar.Invalid, err)
	}
	if o.Smartctl.ExitStatus&notAsked != 0 {
		words := []string{fmt.Sprintf("exit status %d", o.Smartctl.ExitStatus)}
		for _, m := range o.Smartctl.Messages {
			words = append(words, m.String)
		}
		return Facts{}, ashlar.E(op, "", ashlar.Unavailable, errors.New(strings.Join(words, ": ")))
	}
	f := Facts{
		Version: Version, Serial: o.Serial, Model: o.Model, Protocol: o.Device.Protocol,
		Reallocated: Unknown, Pending: Unknown, Uncorrectable: Unknown, LinkCRC: Unknown, Wear: Unknown,
		Temperature: or(o.Temperature.Current),
	}
	if f.Model == "" {
		f.Model = o.ScsiModel
	}
	if s := o.SmartStatus; s != nil && s.Passed != nil && !*s.Passed {
		f.Failing, f.Verdict = true, s.Scsi.Words
	}
	switch {
	case o.Nvme != nil:
		o.nvme(&f)
	case len(o.Attributes.Table) > 0:
		o.ata(&f)
	default:
		o.scsi(&f)
	}
	if f.Wear == Unknown {
		f.Wear = or(o.Endurance.Percent)
	}
	if o.SmartStatus == nil && f.Summary() == "" {
		return Facts{}, ashlar.E(op, "", ashlar.Unavailable, errors.New("the disk says nothing of itself"))
	}
	return f, nil
}

// lifeLeft are the attributes whose normalized value counts down from 100 with
// the life of an SSD, by vendor; the first that is there is taken.
var lifeLeft = []int{231, 233, 202, 177}

func (o *output) ata(f *Facts) {
	var failed []string
	for _, a := range o.Attributes.Table {
		raw := int64(a.Raw.Value)
		switch a.ID {
		case 5:
			f.Reallocated = raw
		case 197:
			f.Pending = raw
		case 187, 198: // reported to the host, found by the disk itself
			f.Uncorrectable = max(f.Uncorrectable, raw)
		case 199:
			f.LinkCRC = raw
		}
		if a.WhenFailed == "now" {
			failed = append(failed, a.Name)
		}
	}
	for _, id := range lifeLeft {
		i := slices.IndexFunc(o.Attributes.Table, func(a attribute) bool { return a.ID == id })
		if name := ""; i >= 0 {
			if name = o.Attributes.Table[i].Name; strings.Contains(name, "Wear") || strings.Contains(name, "Life") {
				f.Wear = max(0, 100-int64(o.Attributes.Table[i].Value))
				break
			}
		}
	}
	if len(failed) > 0 {
		f.Failing, f.Verdict = true, "below its threshold: "+strings.Join(failed, ", ")
	}
}

// warnings are the bits of the critical warning of an NVMe disk.
var warnings = []string{"few spare blocks are left", "", "its reliability is degraded", "the medium is read-only", "the backup of its memory has failed"}

func (o *output) nvme(f *Facts) {
	f.Uncorrectable = or(o.Nvme.MediaErrors)
	f.Wear = or(o.Nvme.PercentageUsed)
	if f.Temperature == Unknown {
		f.Temperature = or(o.Nvme.Temperature)
	}
	var words []string
	for bit, text := range warnings { // bit 1 is heat, which is a number here
		if text != "" && o.Nvme.CriticalWarning>>bit&1 != 0 {
			words = append(words, text)
		}
	}
	if len(words) > 0 {
		f.Failing, f.Verdict = true, strings.Join(words, ", ")
	}
}

func (o *output) scsi(f *Facts) {
	f.Reallocated = or(o.Grown)
	f.Pending = or(o.Pending.Count)
	f.Wear = or(o.ScsiEndurance)
	for _, log := range []string{"read", "write", "verify"} {
		if n := o.Errors[log].Uncorrected; n != nil {
			f.Uncorrectable = max(f.Uncorrectable, 0)
			f.Uncorrectable = min(f.Uncorrectable, math.MaxInt64-int64(*n)) + int64(*n)
		}
	}
}
