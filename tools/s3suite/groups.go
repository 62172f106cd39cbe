package main

import (
	"bufio"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"ashlar/tools/acceptance"
)

// test is one test function of the suite.
type test struct {
	file  string // within the checkout
	name  string
	marks []string
	group string
}

// testFiles hold the tests that are about S3 itself.
var testFiles = []string{"s3tests/functional/test_s3.py", "s3tests/functional/test_headers.py"}

const outOfScope = "out-of-scope"

var (
	defLine  = regexp.MustCompile(`^def (test_\w+)\(`)
	markLine = regexp.MustCompile(`^@pytest\.mark\.(\w+)`)
)

// collect finds the names of the tests that may be run. It looks at the lines
// that define a function and at its marks, and at nothing else.
func collect(checkout string) ([]test, error) {
	var out []test
	for _, name := range testFiles {
		found, err := collectFile(checkout, name)
		if err != nil {
			return nil, err
		}
		out = append(out, found...)
	}
	return out, nil
}

func collectFile(checkout, name string) (out []test, err error) {
	f, err := os.Open(filepath.Join(checkout, name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var marks []string
	seen := map[string]int{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line := lines.Text()
		if m := markLine.FindStringSubmatch(line); m != nil {
			marks = append(marks, m[1])
			continue
		}
		m := defLine.FindStringSubmatch(line)
		if m == nil {
			if !strings.HasPrefix(line, "@") && !strings.HasPrefix(line, "#") {
				marks = nil
			}
			continue
		}
		t := test{file: name, name: m[1], marks: marks}
		marks = nil
		if acceptance.Keeps(t.name) {
			continue
		}
		t.group = groupOf(t)
		if at, twice := seen[t.name]; twice {
			out[at] = t // the later definition is the one that Python knows
			continue
		}
		seen[t.name] = len(out)
		out = append(out, t)
	}
	return out, lines.Err()
}

// foreign are marks of what S3 does not have.
var foreign = map[string]bool{
	"appendobject": true, "auth_aws2": true, "bucket_logging": true, "bucket_logging_cleanup": true,
	"cloud_restore": true, "cloud_transition": true, "iam_account": true, "iam_cross_account": true, "iam_tenant": true,
	"iam_user": true, "iam_role": true, "s3select": true, "sns": true, "target_by_bucket": true, "test_of_sts": true,
	"s3website": true, "s3website_routing_rules": true, "s3website_redirect_location": true,
}

// rules give a group to a test by its name, without "test_"; the first that
// matches counts.
var rules = []struct {
	group string
	name  *regexp.Regexp
}{
	{outOfScope, re(`tenant|unordered|account_usage|head_bucket_usage|bucket_head_extended|bucket_logging|read_through|restore_object|torrent|cloud_|aws2`)},
	{"post-object", re(`post_object`)},
	{"object-lock", re(`object_lock`)},
	{"lifecycle-expiry", re(`lifecycle.*_expiration|lifecycle_expiration|lifecycle.*transition$`)},
	{"lifecycle-config", re(`lifecycle`)},
	{"cors", re(`cors`)},
	{"sse-kms", re(`sse_kms|encryption_kms|_enc_conflict_.*kms|kms`)},
	{"sse-c", re(`sse_c_|^encryption_|encrypted_transfer|enc_conflict_c|copy_enc|copy_part_enc`)},
	{"sse-s3", re(`sse_s3|encryption_s3|s3_noenc|bucket_encryption`)},
	{"public-access-block", re(`public_block|block_public|ignore_public|get_public_block`)},
	{"ownership-controls", re(`ownership|object_writer|owner_preferred|owner_enforced`)},
	{"bucket-policy", re(`policy`)},
	{"checksum", re(`checksum|cksum`)},
	{"object-attributes", re(`object_attributes`)},
	{"tagging", re(`tag`)},
	{"conditional", re(`if_?none_?match|if_?match|if_?nonmatch|ifmodified|ifunmodified`)},
	{"acl", re(`acl|access_bucket_`)},
	{"versioning", re(`version|delete_marker`)},
	{"multi-delete", re(`multi_object`)},
	{"list-v2", re(`listv2|bucketv2`)},
	{"list-buckets", re(`list_buckets`)},
	{"bucket-naming", re(`bucket_create_naming|bucket_list_long_name`)},
	{"list-v1", re(`bucket_list|basic_key_count`)},
	{"copy", re(`copy`)},
	{"multipart", re(`multipart|upload`)},
	{"range-atomic", re(`ranged_request|atomic`)},
	{"presigned-raw-anon", re(`object_raw|anon|presigned|put_authenticated|raw_`)},
	{"bucket", re(`^bucket|^buckets|logging`)},
}

func re(s string) *regexp.Regexp { return regexp.MustCompile(s) }

func groupOf(t test) string {
	for _, m := range t.marks {
		if foreign[m] {
			return outOfScope
		}
	}
	if strings.HasSuffix(t.file, "test_headers.py") {
		return "headers-auth"
	}
	name := strings.TrimPrefix(t.name, "test_")
	for _, r := range rules {
		if r.name.MatchString(name) {
			return r.group
		}
	}
	return "object"
}
