package s3

import (
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"ashlar/s3gw/store"
)

const (
	xmlHeader = `<?xml version="1.0" encoding="UTF-8"?>` + "\n"
	namespace = "http://s3.amazonaws.com/doc/2006-03-01/"
)

// Writer builds an XML document by appending. It never fails; the bytes belong
// to whoever made it.
type Writer struct {
	B []byte
	// URLEncode writes keys and prefixes escaped (encoding-type=url).
	URLEncode bool
	// DisplayName returns the name that is shown beside a canonical id; nil shows
	// the id itself.
	DisplayName func(canonical string) string
}

// Begin writes the declaration and opens the root in S3's namespace.
func (w *Writer) Begin(root string) { w.BeginIn(root, namespace) }

// BeginIn writes the declaration and opens the root in a namespace.
func (w *Writer) BeginIn(root, space string) {
	w.B = append(w.B, xmlHeader...)
	w.B = append(w.B, '<')
	w.B = append(w.B, root...)
	w.B = append(w.B, ` xmlns="`...)
	w.B = append(w.B, space...)
	w.B = append(w.B, '"', '>')
}

// BeginPlain writes the declaration and opens a root that AWS puts into no
// namespace.
func (w *Writer) BeginPlain(root string) {
	w.B = append(w.B, xmlHeader...)
	w.Open(root)
}

// Open writes a start tag.
func (w *Writer) Open(name string) {
	w.B = append(w.B, '<')
	w.B = append(w.B, name...)
	w.B = append(w.B, '>')
}

// Close writes an end tag.
func (w *Writer) Close(name string) {
	w.B = append(w.B, '<', '/')
	w.B = append(w.B, name...)
	w.B = append(w.B, '>')
}

// Raw writes an element whose text needs no escaping.
func (w *Writer) Raw(name, text string) {
	w.Open(name)
	w.B = append(w.B, text...)
	w.Close(name)
}

// Text writes an element with any text.
func (w *Writer) Text(name, text string) {
	w.Open(name)
	w.B = appendXMLText(w.B, text)
	w.Close(name)
}

// Name writes an element that holds a key, prefix, marker or delimiter: the
// ones that encoding-type=url concerns.
func (w *Writer) Name(name, text string) {
	w.Open(name)
	if w.URLEncode {
		w.B = AppendEscaped(w.B, text, true)
	} else {
		w.B = appendXMLText(w.B, text)
	}
	w.Close(name)
}

// IsXMLName reports whether text may stand in the name of an element, behind a letter.
func IsXMLName(text string) bool { return plain(text) }

// Int writes an element with a number.
func (w *Writer) Int(name string, n int64) {
	w.Open(name)
	w.B = strconv.AppendInt(w.B, n, 10)
	w.Close(name)
}

// Bool writes an element with true or false.
func (w *Writer) Bool(name string, v bool) {
	w.Open(name)
	w.B = strconv.AppendBool(w.B, v)
	w.Close(name)
}

// Time writes an element with an instant, in milliseconds and UTC.
func (w *Writer) Time(name string, t time.Time) {
	w.Open(name)
	w.B = t.UTC().AppendFormat(w.B, timestampLayout)
	w.Close(name)
}

const timestampLayout = "2006-01-02T15:04:05.000Z"

// Timestamp prints an instant as S3 does in documents and some headers.
func Timestamp(t time.Time) string { return t.UTC().Format(timestampLayout) }

// ETag writes an element with a quoted entity tag.
func (w *Writer) ETag(name, etag string) {
	w.Open(name)
	w.B = append(w.B, "&quot;"...)
	w.B = append(w.B, etag...)
	w.B = append(w.B, "&quot;"...)
	w.Close(name)
}

// Owner writes an account under the given element name.
func (w *Writer) Owner(element, account string) {
	w.Open(element)
	w.Text("ID", account)
	w.Text("DisplayName", w.displayName(account))
	w.Close(element)
}

func (w *Writer) displayName(canonical string) string {
	if w.DisplayName == nil {
		return canonical
	}
	return w.DisplayName(canonical)
}

// Checksum writes the element of a checksum and, if typed, its type. Nil writes nothing.
func (w *Writer) Checksum(c *store.Checksum, typed bool) {
	if c == nil {
		return
	}
	a := AlgorithmOf(c.Algorithm)
	if a == nil {
		return
	}
	w.Raw(a.Element, FormatChecksum(c))
	if typed {
		w.Raw("ChecksumType", ChecksumType(c))
	}
}

// ChecksumType returns COMPOSITE or FULL_OBJECT.
func ChecksumType(c *store.Checksum) string {
	if c.Parts > 0 {
		return "COMPOSITE"
	}
	return "FULL_OBJECT"
}

// appendXMLText escapes s for an element. What XML 1.0 cannot hold is written
// as AWS does: control characters as references, broken UTF-8 as U+FFFD.
func appendXMLText(b []byte, s string) []byte {
	start := 0
	for i := 0; i < len(s); {
		var esc string
		size := 1
		switch c := s[i]; {
		case c == '&':
			esc = "&amp;"
		case c == '<':
			esc = "&lt;"
		case c == '>':
			esc = "&gt;"
		case c == '"':
			esc = "&quot;"
		case c == '\'':
			esc = "&#39;"
		case c == 0:
			esc = "\uFFFD"
		case c < 0x20 || c == 0x7f:
			b = append(b, s[start:i]...)
			b = append(b, "&#x"...)
			b = strconv.AppendUint(b, uint64(c), 16)
			b = append(b, ';')
			i++
			start = i
			continue
		case c < utf8.RuneSelf:
			i++
			continue
		default:
			var r rune
			r, size = utf8.DecodeRuneInString(s[i:])
			if !(r == utf8.RuneError && size == 1) && r != 0xFFFE && r != 0xFFFF {
				i += size
				continue
			}
			esc = "\uFFFD"
		}
		b = append(b, s[start:i]...)
		b = append(b, esc...)
		i += size
		start = i
	}
	return append(b, s[start:]...)
}

// AppendError writes the error document of e.
func AppendError(b []byte, e *Error, resource, requestID, hostID string) []byte {
	w := Writer{B: append(b, xmlHeader...)}
	w.Open("Error")
	w.Raw("Code", e.Code.String())
	w.Open("Message") // with bare quotes, as S3 writes them: some clients search the document for words
	w.B = append(w.B, strings.ReplaceAll(string(appendXMLText(nil, e.Text())), "&quot;", `"`)...)
	w.Close("Message")
	for _, f := range e.Fields {
		w.Text(f.Name, f.Value)
	}
	w.Text("Resource", resource)
	w.Raw("RequestId", requestID)
	w.Text("HostId", hostID)
	w.Close("Error")
	return w.B
}
