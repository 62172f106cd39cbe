package directory

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/hex"
	"fmt"
	"strings"

	"ashlar/s3gw/iam"
	"ashlar/s3gw/s3"
	"ashlar/s3gw/store/row"
)

// Sort is what a principal is: the letter in its row's key.
type Sort byte

// The sorts of principals.
const (
	User  Sort = 'u'
	Group Sort = 'g'
	Role  Sort = 'r'
)

// String is the word in ARNs.
func (s Sort) String() string { return map[Sort]string{User: "user", Group: "group", Role: "role"}[s] }

const (
	sortKey      = 'k'
	sortPolicy   = 'p'
	sortProvider = 'o'
	sortCounter  = 'n'
	sortSession  = 's'
)

// Limits, those of AWS.
const (
	KeysMax     = 2
	GroupsMax   = 10
	AttachedMax = 10
	VersionsMax = 5
	// pathBytesMax and the lengths of names.
	pathBytesMax   = 512
	userNameMax    = 64
	otherNameMax   = 128
	descriptionMax = 1000
)

// inlineMax bounds the inline policies of one principal together, managedMax and
// trustMax one document. Spaces do not count.
var inlineMax = map[Sort]int{User: 2048, Group: 5120, Role: 10240}

const (
	managedMax = 6144
	trustMax   = 4096
)

// under is the prefix of all rows of a sort in an account, with room for more.
func under(a *iam.Account, sort byte) []byte {
	raw, _ := hex.DecodeString(a.Canonical) // 64 digits: iam.NewStatic saw to it
	return append([]byte{row.KindIdentity, sort}, raw...)
}

func keyOf(a *iam.Account, sort byte, name string) []byte {
	return append(under(a, sort), strings.ToLower(name)...)
}

func counterOf(a *iam.Account, sort byte, name string) []byte {
	return append(append(under(a, sortCounter), sort), strings.ToLower(name)...)
}

func accessKeyRow(id string) []byte { return append([]byte{row.KindIdentity, sortKey}, id...) }

func sessionRow() []byte { return []byte{row.KindIdentity, sortSession, 0} }

func successor(prefix []byte) []byte { return row.Successor(prefix) }

// newID returns an id that was never given: a prefix that says of what, and 85 random bits.
func newID(prefix string) string {
	var raw [11]byte
	rand.Read(raw[:])
	return prefix + base32.StdEncoding.EncodeToString(raw[:])[:17]
}

var idPrefixes = map[Sort]string{User: "AIDA", Group: "AGPA", Role: "AROA"}

// permanent begins the access keys of users.
const permanent = "AKIA"

// keyLength is that of an access key; what follows the prefix are base32 digits.
const keyLength = 20

func newAccessKey() string { return newID(permanent)[:keyLength] }

// isAccessKey reports whether a text can be an access key of a user: no row is looked
// for otherwise.
func isAccessKey(s string) bool {
	return len(s) == keyLength && strings.HasPrefix(s, permanent) && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") == ""
}

func invalid(format string, args ...any) error {
	return s3.E(s3.ValidationError, fmt.Sprintf(format, args...))
}

func noSuch(what, name string) error {
	return s3.E(s3.NoSuchEntity, "The "+what+" with name "+name+" cannot be found.")
}

func exists(what, name string) error {
	return s3.E(s3.EntityAlreadyExists, strings.ToUpper(what[:1])+what[1:]+" with name "+name+" already exists.")
}

// checkName judges a name of a user, group, role or policy.
func checkName(what, name string, bytesMax int) error {
	for _, c := range []byte(name) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && strings.IndexByte("_+=,.@-", c) < 0 {
			return invalid("The specified value for %s is invalid. It must contain only alphanumeric characters and/or the following: +=,.@_-", what)
		}
	}
	if name == "" || len(name) > bytesMax {
		return invalid("The specified value for %s is invalid: it has %d characters, want 1 to %d", what, len(name), bytesMax)
	}
	return nil
}

func nameMax(s Sort) int {
	if s == Group {
		return otherNameMax
	}
	return userNameMax
}

func checkPath(path string) error {
	ok := path != "" && path[0] == '/' && path[len(path)-1] == '/' && len(path) <= pathBytesMax && !strings.Contains(path, "//")
	for _, c := range []byte(path) {
		ok = ok && c > ' ' && c < 0x7f
	}
	if !ok {
		return invalid("The specified value for path is invalid. It must begin and end with / and contain only printable ASCII characters.")
	}
	return nil
}
