package s3

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strconv"
	"strings"
	"time"

	"ashlar/s3gw/store"
)

// Bounds of XML that comes in.
const (
	XMLBytesMax   = 2 << 20
	xmlDepthMax   = 32
	deleteKeysMax = 1000
)

// node is one element: its local name, its text and its children.
type node struct {
	name     string
	text     []byte
	children []*node
}

func malformed(why string) *Error { return &Error{Code: MalformedXML, Err: errors.New(why)} }

// parseXML reads one document into a tree. DTDs, entities beyond the five of
// XML, other encodings, depth, size and anything behind the root are refused.
func parseXML(doc []byte) (*node, error) {
	if len(doc) > XMLBytesMax {
		return nil, malformed("too large")
	}
	d := xml.NewDecoder(bytes.NewReader(doc))
	var root *node
	var stack []*node
	for {
		tok, err := d.RawToken()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, malformed(err.Error())
		}
		switch t := tok.(type) {
		case xml.StartElement:
			n := &node{name: t.Name.Local}
			switch {
			case len(stack) >= xmlDepthMax:
				return nil, malformed("too deep")
			case len(stack) > 0:
				parent := stack[len(stack)-1]
				parent.children = append(parent.children, n)
			case root != nil:
				return nil, malformed("two roots")
			default:
				root = n
			}
			stack = append(stack, n)
		case xml.EndElement:
			if len(stack) == 0 || stack[len(stack)-1].name != t.Name.Local {
				return nil, malformed("tags do not match")
			}
			stack = stack[:len(stack)-1]
		case xml.CharData:
			if len(stack) == 0 {
				if len(bytes.TrimSpace(bytes.TrimPrefix(t, []byte("\uFEFF")))) > 0 {
					return nil, malformed("text outside the root")
				}
				continue
			}
			stack[len(stack)-1].text = append(stack[len(stack)-1].text, t...)
		case xml.Directive:
			return nil, malformed("DTD")
		case xml.ProcInst:
			if root != nil || t.Target != "xml" {
				return nil, malformed("processing instruction")
			}
		}
	}
	if root == nil || len(stack) > 0 {
		return nil, malformed("incomplete")
	}
	return root, nil
}

// value returns the text of an element that has no children.
func (n *node) value() (string, error) {
	if len(n.children) > 0 {
		return "", malformed("text expected in " + n.name)
	}
	return string(n.text), nil
}

// ParseNewBucket reads a CreateBucketConfiguration: the location constraint and the
// tags of a bucket that is to be made. An empty body says neither.
func ParseNewBucket(doc []byte) (location string, tags map[string]string, err error) {
	if len(doc) == 0 {
		return "", nil, nil
	}
	root, err := parseXML(doc)
	if err != nil {
		return "", nil, err
	}
	if root.name != "CreateBucketConfiguration" && root.name != "CreateBucketRequest" {
		return "", nil, malformed("root " + root.name)
	}
	for _, c := range root.children {
		switch c.name {
		case "LocationConstraint":
			location, err = c.value()
		case "Tags":
			tags, err = parseTags(c, BucketTagsMax)
		default:
			err = E(NotImplemented, "The bucket configuration "+printable(c.name)+" is not implemented.")
		}
		if err != nil {
			return "", nil, err
		}
	}
	return strings.TrimSpace(location), tags, nil
}

// ParseVersioning reads a VersioningConfiguration.
func ParseVersioning(doc []byte) (store.Versioning, error) {
	root, err := parseXML(doc)
	if err != nil {
		return "", err
	}
	if root.name != "VersioningConfiguration" {
		return "", malformed("root " + root.name)
	}
	var state store.Versioning
	for _, c := range root.children {
		v, err := c.value()
		switch {
		case err != nil:
			return "", err
		case c.name == "Status" && state == "":
			state = store.Versioning(v)
		case c.name == "MfaDelete" && v == "Disabled":
		case c.name == "MfaDelete":
			return "", E(NotImplemented, "MFA delete is not implemented.")
		default:
			return "", malformed("element " + c.name)
		}
	}
	switch state {
	case store.VersioningEnabled, store.VersioningSuspended:
		return state, nil
	case "":
		return "", E(IllegalVersioningConfigurationException, "")
	}
	return "", malformed("Status " + printable(string(state)))
}

// DeleteKey is one line of a multi-object delete. Key was not judged yet: a bad
// key fails alone and not the batch.
type DeleteKey struct {
	Key, VersionID, ETag string
	Bytes                *uint64    // nil: no condition
	Modified             *time.Time // nil: no condition
}

// ParseDelete reads the body of DeleteObjects.
func ParseDelete(doc []byte) (keys []DeleteKey, quiet bool, err error) {
	root, err := parseXML(doc)
	if err != nil {
		return nil, false, err
	}
	if root.name != "Delete" {
		return nil, false, malformed("root " + root.name)
	}
	for _, c := range root.children {
		switch c.name {
		case "Quiet":
			v, err := c.value()
			if err != nil {
				return nil, false, err
			}
			quiet = strings.EqualFold(strings.TrimSpace(v), "true")
		case "Object":
			k, err := parseDeleteKey(c)
			if err != nil {
				return nil, false, err
			}
			if keys = append(keys, k); len(keys) > deleteKeysMax {
				return nil, false, malformed("more than 1000 keys")
			}
		default:
			return nil, false, malformed("element " + c.name)
		}
	}
	if len(keys) == 0 {
		return nil, false, malformed("no keys")
	}
	return keys, quiet, nil
}

func parseDeleteKey(n *node) (k DeleteKey, err error) {
	seen := false
	for _, c := range n.children {
		v, err := c.value()
		if err != nil {
			return k, err
		}
		switch c.name {
		case "Key":
			if seen {
				return k, malformed("two keys")
			}
			k.Key, seen = v, true
		case "VersionId":
			k.VersionID = v
		case "ETag":
			k.ETag = CleanETag(v)
		case "Size":
			n, err := strconv.ParseUint(strings.TrimSpace(v), 10, 63)
			if err != nil {
				return k, malformed("size")
			}
			k.Bytes = &n
		case "LastModifiedTime":
			t, err := ParseDate(strings.TrimSpace(v))
			if err != nil {
				return k, malformed("time")
			}
			k.Modified = &t
		default:
			return k, malformed("element " + c.name)
		}
	}
	if !seen || k.Key == "" {
		return k, malformed("no key")
	}
	return k, nil
}

// ParseComplete reads the body of CompleteMultipartUpload. The order of the
// parts is judged here: 1 to 10,000 parts, ascending.
func ParseComplete(doc []byte) ([]store.CompletePart, error) {
	root, err := parseXML(doc)
	if err != nil {
		return nil, err
	}
	if root.name != "CompleteMultipartUpload" && root.name != "CompleteMultipartUploadRequest" {
		return nil, malformed("root " + root.name)
	}
	if n := len(root.children); n == 0 || n > store.PartsMax {
		return nil, malformed("number of parts")
	}
	parts := make([]store.CompletePart, 0, len(root.children))
	for _, c := range root.children {
		if c.name != "Part" {
			return nil, malformed("element " + c.name)
		}
		p, err := parseCompletePart(c)
		if err != nil {
			return nil, err
		}
		parts = append(parts, p)
	}
	for i := 1; i < len(parts); i++ {
		if parts[i].Number <= parts[i-1].Number {
			return nil, E(InvalidPartOrder, "")
		}
	}
	return parts, nil
}

func parseCompletePart(n *node) (p store.CompletePart, err error) {
	numbered := false
	for _, c := range n.children {
		v, err := c.value()
		if err != nil {
			return p, err
		}
		v = strings.TrimSpace(v)
		switch c.name {
		case "PartNumber":
			numbered = true
			if p.Number, err = strconv.Atoi(v); err != nil {
				return p, malformed("part number")
			}
		case "ETag":
			p.ETag = CleanETag(v)
		default:
			a := algorithmOfElement(c.name)
			if a == nil || p.Checksum != nil {
				return p, malformed("element " + c.name)
			}
			if p.Checksum, err = ParseChecksum(a, v); err != nil {
				return p, E(InvalidArgument, "Invalid Base64 or multiple checksums present in request").OnRGW(BadDigest).
					With("ArgumentName", "Checksum").With("ArgumentValue", printable(v))
			}
		}
	}
	switch {
	case !numbered:
		return p, malformed("no part number")
	case p.Number < 1:
		return p, E(InvalidArgument, "PartNumber must be >= 1").With("ArgumentName", "PartNumber").With("ArgumentValue", strconv.Itoa(p.Number))
	case p.Number > store.PartsMax:
		return p, E(InvalidArgument, "Part number must be an integer between 1 and 10000, inclusive").
			With("ArgumentName", "partNumber").With("ArgumentValue", strconv.Itoa(p.Number))
	case p.ETag == "":
		return p, malformed("no ETag")
	}
	return p, nil
}

func algorithmOfElement(name string) *Algorithm {
	for _, a := range Algorithms {
		if a.Element == name {
			return a
		}
	}
	return nil
}
