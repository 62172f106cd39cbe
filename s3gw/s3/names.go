package s3

import (
	"net/netip"
	"strings"
	"unicode/utf8"

	"ashlar/s3gw/store"
)

// KeyBytesMax is the longest key, in bytes of UTF-8.
const KeyBytesMax = 1024

// Bucket is a bucket name that ParseBucket accepted.
type Bucket string

// Key is an object key that ParseKey accepted: UTF-8 without NUL, 1 to 1024
// bytes, otherwise opaque. "a/../b", "//" and "\" are ordinary keys.
type Key string

// bucketPrefixes and bucketSuffixes are reserved by AWS for other kinds of
// buckets and access points.
var (
	bucketPrefixes = []string{"xn--", "sthree-", "amzn-s3-demo-"}
	bucketSuffixes = []string{"-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"}
)

// ParseBucket judges a bucket name by AWS's rules for general purpose buckets.
func ParseBucket(name string) (Bucket, error) {
	bad := func() (Bucket, error) { return "", E(InvalidBucketName, "").With("BucketName", printable(name)) }
	if len(name) < 3 || len(name) > 63 {
		return bad()
	}
	for i := 0; i < len(name); i++ {
		c := name[i]
		alnum := 'a' <= c && c <= 'z' || '0' <= c && c <= '9'
		edge := i == 0 || i == len(name)-1
		if !alnum && (edge || c != '-' && c != '.') {
			return bad()
		}
		if c == '.' && (name[i-1] == '.' || name[i-1] == '-') || c == '-' && name[i-1] == '.' {
			return bad() // a label of a host name does not begin or end like this
		}
	}
	for _, p := range bucketPrefixes {
		if strings.HasPrefix(name, p) {
			return bad()
		}
	}
	for _, s := range bucketSuffixes {
		if strings.HasSuffix(name, s) {
			return bad()
		}
	}
	if last := name[len(name)-1]; '0' <= last && last <= '9' && strings.Count(name, ".") == 3 {
		if _, err := netip.ParseAddr(name); err == nil {
			return bad()
		}
	}
	return Bucket(name), nil
}

// ParseKey judges an object key.
func ParseKey(key string) (Key, error) {
	switch {
	case key == "":
		return "", E(InvalidURI, "The key is empty.")
	case len(key) > KeyBytesMax:
		return "", E(KeyTooLongError, "").With("MaxSizeAllowed", "1024")
	case !validText(key):
		return "", E(InvalidURI, "")
	}
	return Key(key), nil
}

// RegionForm says what IsRegion takes, for error messages.
const RegionForm = "1 to 64 letters, digits, hyphens, dots and underscores"

// IsRegion reports whether a text can be the name of a region, of whatever store.
func IsRegion(name string) bool { return len(name) > 0 && len(name) <= 64 && plain(name) }

// plain reports whether a text is of letters, digits, hyphens, dots and underscores.
func plain(text string) bool {
	for i := 0; i < len(text); i++ {
		if !unreserved[text[i]] || text[i] == '~' {
			return false
		}
	}
	return true
}

// validText reports whether s is UTF-8 without NUL.
func validText(s string) bool {
	return strings.IndexByte(s, 0) < 0 && utf8.ValidString(s)
}

// printable makes any bytes fit for an XML document.
func printable(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// CheckVersion judges the form of a version id. Ids are opaque to clients: what may
// be the id of another store is no version here (NoSuchVersion, where there is no
// such one), and only what nobody makes is no argument.
func CheckVersion(v string) error {
	const why = "Invalid version id specified"
	if v == "" {
		return E(InvalidArgument, "Version id cannot be the empty string").With("ArgumentName", "versionId").With("ArgumentValue", "")
	}
	if v == store.NullVersion {
		return nil
	}
	bad := len(v) < versionBytesMin || len(v) > versionBytesMax
	for i := 0; i < len(v) && !bad; i++ {
		bad = !unreserved[v[i]]
	}
	if bad {
		return E(InvalidArgument, why).With("ArgumentName", "versionId").With("ArgumentValue", printable(v))
	}
	return nil
}

const (
	// versionBytesMin is shorter than the id of any store that is known.
	versionBytesMin = 20
	// versionBytesMax is S3's bound.
	versionBytesMax = 1024
)

// ParseCopySource reads x-amz-copy-source: "bucket/key" or "/bucket/key",
// escaped, with an optional versionId.
func ParseCopySource(h string) (Bucket, Key, string, error) {
	bad := func(why string) (Bucket, Key, string, error) {
		return "", "", "", E(InvalidArgument, why).With("ArgumentName", "x-amz-copy-source").
			With("ArgumentValue", printable(h))
	}
	if strings.HasPrefix(h, "arn:") {
		return "", "", "", E(NotImplemented, "Copying from an access point is not implemented.")
	}
	path, query, _ := strings.Cut(h, "?")
	version := ""
	if query != "" {
		v, ok := strings.CutPrefix(query, "versionId=")
		if !ok {
			return bad("The copy source has parameters that are not known.")
		}
		if err := CheckVersion(v); err != nil {
			return "", "", "", err
		}
		version = v
	}
	path, ok := Unescape(path, false)
	if !ok {
		return bad("Invalid copy source encoding")
	}
	name, rawKey, ok := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	if name == "" {
		return bad("Invalid copy source bucket name")
	}
	if !ok || rawKey == "" {
		return bad("Invalid copy source object key")
	}
	bucket, err := ParseBucket(name)
	if err != nil {
		return bad("Invalid copy source bucket name")
	}
	key, err := ParseKey(rawKey)
	return bucket, key, version, err
}
