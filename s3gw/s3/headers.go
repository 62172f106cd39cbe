package s3

import (
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"time"

	"ashlar/s3gw/store"
)

// MetadataBytesMax bounds names and values of x-amz-meta-* together.
const MetadataBytesMax = 2048

const metaPrefix = "X-Amz-Meta-"

// UserMetadata collects x-amz-meta-*; nil if there is none.
func UserMetadata(h http.Header) (map[string]string, error) {
	var m map[string]string
	size := 0
	for name, values := range h {
		if len(name) < len(metaPrefix) || !strings.EqualFold(name[:len(metaPrefix)], metaPrefix) {
			continue
		}
		key := strings.ToLower(name[len(metaPrefix):])
		if key == "" {
			return nil, E(InvalidArgument, "A metadata name is empty.")
		}
		value := strings.Join(values, ",")
		if size += len(key) + len(value); size > MetadataBytesMax {
			return nil, E(MetadataTooLarge, "").With("Size", strconv.Itoa(size)).
				With("MaxSizeAllowed", strconv.Itoa(MetadataBytesMax))
		}
		if m == nil {
			m = make(map[string]string, 4)
		}
		m[key] = value
	}
	return m, nil
}

// TagsOf reads x-amz-tagging, which is written like a query string.
func TagsOf(h http.Header) (map[string]string, error) {
	raw := h.Get("X-Amz-Tagging")
	if raw == "" {
		return nil, nil
	}
	q, err := ParseQuery(raw)
	if err != nil {
		return nil, badTagging(raw)
	}
	list := make([]Tag, len(q))
	for i, p := range q {
		if p.Name == "" || slices.ContainsFunc(q[:i], func(before Param) bool { return before.Name == p.Name }) {
			return nil, badTagging(raw).OnRGW(InvalidTag)
		}
		list[i] = Tag{p.Name, p.Value}
	}
	return judgeTags(list, ObjectTagsMax)
}

func badTagging(raw string) *Error {
	return E(InvalidArgument, "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters without tag name duplicates.").
		With("ArgumentName", "x-amz-tagging").With("ArgumentValue", printable(raw))
}

var storageClasses = []string{
	"STANDARD", "REDUCED_REDUNDANCY", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER",
	"DEEP_ARCHIVE", "OUTPOSTS", "GLACIER_IR", "SNOW", "EXPRESS_ONEZONE",
}

// StorageClass judges x-amz-storage-class; STANDARD is returned as empty.
func StorageClass(h http.Header) (string, error) {
	c := h.Get("X-Amz-Storage-Class")
	if c == "" || c == storageClasses[0] {
		return "", nil
	}
	for _, known := range storageClasses {
		if c == known {
			return c, nil
		}
	}
	return "", E(InvalidStorageClass, "").With("StorageClassRequested", printable(c))
}

// redirectBytesMax is AWS's bound.
const redirectBytesMax = 2048

// WebsiteRedirect reads x-amz-website-redirect-location.
func WebsiteRedirect(h http.Header) (string, error) {
	to := h.Get("X-Amz-Website-Redirect-Location")
	if to == "" {
		return "", nil
	}
	if len(to) <= redirectBytesMax {
		for _, begin := range []string{"/", "http://", "https://"} {
			if strings.HasPrefix(to, begin) {
				return to, nil
			}
		}
	}
	return "", E(InvalidRedirectLocation, "")
}

// StripChunked removes aws-chunked from Content-Encoding: it says how the body
// travelled, not what the object is.
func StripChunked(encoding string) string {
	if !strings.Contains(encoding, "aws-chunked") {
		return encoding
	}
	kept := make([]string, 0, 2)
	for _, e := range strings.Split(encoding, ",") {
		if name := strings.TrimSpace(e); name != "" && name != "aws-chunked" {
			kept = append(kept, e)
		}
	}
	return strings.TrimSpace(strings.Join(kept, ","))
}

// Conditions reads the If-* headers whose names begin with prefix, which is
// empty or "X-Amz-Copy-Source-". A date that cannot be read is no condition.
func Conditions(h http.Header, prefix string) store.Conditions {
	return store.Conditions{
		IfMatch:           etags(h[prefix+"If-Match"]),
		IfNoneMatch:       etags(h[prefix+"If-None-Match"]),
		IfModifiedSince:   date(h[prefix+"If-Modified-Since"]),
		IfUnmodifiedSince: date(h[prefix+"If-Unmodified-Since"]),
	}
}

func etags(values []string) []string {
	var list []string
	for _, v := range values {
		for _, e := range strings.Split(v, ",") {
			// An empty tag is kept: it matches nothing, and a condition that was
			// sent must never become no condition.
			list = append(list, CleanETag(e))
		}
	}
	return list
}

// CleanETag removes spaces, the weak mark and quotes.
func CleanETag(e string) string {
	e = textproto.TrimString(e)
	e = strings.TrimPrefix(e, "W/")
	return strings.Trim(e, `"`)
}

// ParseDate reads a date as HTTP writes it, or as XML does.
func ParseDate(text string) (time.Time, error) {
	if t, err := http.ParseTime(text); err == nil {
		return t, nil
	}
	return time.Parse(time.RFC3339, text)
}

func date(values []string) *time.Time {
	if len(values) == 0 {
		return nil
	}
	t, err := http.ParseTime(values[0])
	if err != nil {
		return nil
	}
	return &t
}

// MatchETag reports whether etag is one of list; "*" matches any.
func MatchETag(list []string, etag string) bool {
	for _, e := range list {
		if e == "*" || e == etag {
			return true
		}
	}
	return false
}

// JudgeRead decides a conditional read of an object by RFC 9110's order. For
// a copy source every failure is PreconditionFailed.
func JudgeRead(c *store.Conditions, etag string, modified time.Time, copySource bool) error {
	modified = modified.Truncate(time.Second)
	notModified := NotModified
	if copySource {
		notModified = PreconditionFailed
	}
	switch {
	case len(c.IfMatch) > 0:
		if !MatchETag(c.IfMatch, etag) {
			return E(PreconditionFailed, "").With("Condition", "If-Match")
		}
	case c.IfUnmodifiedSince != nil && modified.After(*c.IfUnmodifiedSince):
		return E(PreconditionFailed, "").With("Condition", "If-Unmodified-Since")
	}
	switch {
	case len(c.IfNoneMatch) > 0:
		if MatchETag(c.IfNoneMatch, etag) {
			return E(notModified, "").With("Condition", "If-None-Match")
		}
	case c.IfModifiedSince != nil && !modified.After(*c.IfModifiedSince):
		return E(notModified, "").With("Condition", "If-Modified-Since")
	}
	return nil
}

// Range is a part of an object, in bytes.
type Range struct{ Offset, Length uint64 }

// ParseRange reads a Range header for an object of size bytes. ok is false
// where the header is to be ignored (absent, not understood, several ranges);
// a range that lies past the end is InvalidRange.
func ParseRange(header string, size uint64) (r Range, ok bool, err error) {
	spec, found := strings.CutPrefix(header, "bytes=")
	if !found || strings.IndexByte(spec, ',') >= 0 {
		return r, false, nil
	}
	first, last, found := strings.Cut(spec, "-")
	if !found {
		return r, false, nil
	}
	past := func() (Range, bool, error) {
		return Range{}, false, E(InvalidRange, "").With("RangeRequested", printable(header)).
			With("ActualObjectSize", strconv.FormatUint(size, 10))
	}
	if first == "" {
		n, good := decimal(last)
		switch {
		case !good:
			return r, false, nil
		case n == 0:
			return past()
		case size == 0: // RFC 9110: a suffix of what is shorter is all of it
			return r, false, nil
		}
		n = min(n, size)
		return Range{size - n, n}, true, nil
	}
	from, good := decimal(first)
	if !good {
		return r, false, nil
	}
	to := size - 1
	if last != "" {
		n, good := decimal(last)
		if !good || n < from {
			return r, false, nil
		}
		to = min(n, to)
	}
	if from >= size {
		return past()
	}
	return Range{from, to - from + 1}, true, nil
}

// ParseCopyRange reads x-amz-copy-source-range, which is stricter: exactly
// bytes=first-last, wholly inside the source.
func ParseCopyRange(header string, size uint64) (Range, error) {
	bad := func() (Range, error) {
		return Range{}, E(InvalidArgument, "The x-amz-copy-source-range value must be of the form bytes=first-last "+
			"where first and last are the zero-based offsets of the first and last bytes to copy").
			With("ArgumentName", "x-amz-copy-source-range").With("ArgumentValue", printable(header))
	}
	spec, found := strings.CutPrefix(header, "bytes=")
	first, last, dash := strings.Cut(spec, "-")
	from, okFrom := decimal(first)
	to, okTo := decimal(last)
	if !found || !dash || !okFrom || !okTo || to < from {
		return bad()
	}
	if to >= size {
		return Range{}, E(InvalidArgument, "Range specified is not valid for source object of size: "+strconv.FormatUint(size, 10)).
			With("ArgumentName", "x-amz-copy-source-range").With("ArgumentValue", printable(header))
	}
	return Range{from, to - from + 1}, nil
}

// decimal reads digits only: no sign, no space, no overflow. A number too large
// for 64 bits is the largest one, so that "bytes=0-99999999999999999999" works.
func decimal(s string) (uint64, bool) {
	if s == "" {
		return 0, false
	}
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 1<<64 - 1, true
	}
	return n, true
}
