package s3

import (
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits of tags.
const (
	// ObjectTagsMax and BucketTagsMax are how many tags each may have.
	ObjectTagsMax = 10
	BucketTagsMax = 50
	tagKeyMax     = 128
	tagValueMax   = 256
)

// Tag is one tag as it was sent.
type Tag struct{ Key, Value string }

// tagText reports whether s holds only what AWS allows in tags: letters, numbers,
// spaces and a few signs.
func tagText(s string) bool {
	for _, r := range s {
		if r == utf8.RuneError || !unicode.IsLetter(r) && !unicode.IsNumber(r) && !unicode.IsMark(r) && !unicode.IsSpace(r) && !strings.ContainsRune("+-=._:/@", r) {
			return false
		}
	}
	return true
}

// judgeTags turns a list of tags into what is kept.
func judgeTags(list []Tag, max int) (map[string]string, error) {
	if len(list) > max {
		if max == ObjectTagsMax {
			return nil, E(BadRequest, "Object tags cannot be greater than 10").OnRGW(InvalidTag)
		}
		return nil, E(BadRequest, "Bucket tag count cannot be greater than 50").OnRGW(InvalidTag)
	}
	tags := make(map[string]string, len(list))
	for _, t := range list {
		if _, twice := tags[t.Key]; twice {
			return nil, E(InvalidTag, "Cannot provide multiple Tags with the same key").With("TagKey", printable(t.Key))
		}
		if t.Key == "" || !tagText(t.Key) || len([]rune(t.Key)) > tagKeyMax || strings.HasPrefix(strings.ToLower(t.Key), "aws:") {
			return nil, E(InvalidTag, "The TagKey you have provided is invalid").With("TagKey", printable(t.Key))
		}
		if !tagText(t.Value) || len([]rune(t.Value)) > tagValueMax {
			return nil, E(InvalidTag, "The TagValue you have provided is invalid").With("TagKey", printable(t.Key)).With("TagValue", printable(t.Value))
		}
		tags[t.Key] = t.Value
	}
	return tags, nil
}

// ParseTagging reads a Tagging document of at most max tags.
func ParseTagging(doc []byte, max int) (map[string]string, error) {
	root, err := parseXML(doc)
	if err != nil {
		return nil, err
	}
	if root.name != "Tagging" || len(root.children) != 1 || root.children[0].name != "TagSet" {
		return nil, malformed("want Tagging with one TagSet")
	}
	return parseTags(root.children[0], max)
}

// parseTags reads an element that holds Tag elements.
func parseTags(n *node, max int) (map[string]string, error) {
	var list []Tag
	for _, c := range n.children {
		t, err := parseTag(c)
		if err != nil {
			return nil, err
		}
		list = append(list, t)
	}
	return judgeTags(list, max)
}

// parseTag reads a Tag element: exactly one Key and one Value.
func parseTag(n *node) (t Tag, err error) {
	if n.name != "Tag" {
		return t, malformed("element " + n.name)
	}
	seen := map[string]bool{}
	for _, c := range n.children {
		v, err := c.value()
		switch {
		case err != nil:
			return t, err
		case seen[c.name]:
			return t, malformed("two of " + c.name)
		case c.name == "Key":
			t.Key = v
		case c.name == "Value":
			t.Value = v
		default:
			return t, malformed("element " + c.name)
		}
		seen[c.name] = true
	}
	if len(seen) != 2 {
		return t, malformed("a Tag has a Key and a Value")
	}
	return t, nil
}

// Tags writes a Tagging document.
func (w *Writer) Tags(tags map[string]string) {
	w.Begin("Tagging")
	w.Open("TagSet")
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		w.Open("Tag")
		w.Text("Key", k)
		w.Text("Value", tags[k])
		w.Close("Tag")
	}
	w.Close("TagSet")
	w.Close("Tagging")
}
