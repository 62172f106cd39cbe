package s3

import (
	"encoding/base64"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"ashlar/s3gw/store"
)

type nobody struct{}

func (nobody) ByCanonical(id string) bool            { return id == "owner" }
func (nobody) ByEmail(address string) (string, bool) { return "", false }

// readers read every document that a client may send. Each returns what was read and,
// where a document is kept or shown again, how it is written.
var readers = map[string]func(doc []byte) (read any, written []byte, err error){
	"delete": func(doc []byte) (any, []byte, error) {
		keys, quiet, err := ParseDelete(doc)
		if err == nil && (len(keys) == 0 || len(keys) > deleteKeysMax) {
			err = fmt.Errorf("%d keys", len(keys))
		}
		return []any{keys, quiet}, nil, err
	},
	"complete": func(doc []byte) (any, []byte, error) {
		parts, err := ParseComplete(doc)
		for i := 1; i < len(parts); i++ {
			if parts[i].Number <= parts[i-1].Number || parts[i].Number > store.PartsMax {
				err = fmt.Errorf("part %d behind %d", parts[i].Number, parts[i-1].Number)
			}
		}
		return parts, nil, err
	},
	"bucket": func(doc []byte) (any, []byte, error) {
		location, tags, err := ParseNewBucket(doc)
		return []any{location, tags}, nil, err
	},
	"versioning": func(doc []byte) (any, []byte, error) {
		v, err := ParseVersioning(doc)
		return v, nil, err
	},
	"tagging": func(doc []byte) (any, []byte, error) {
		tags, err := ParseTagging(doc, ObjectTagsMax)
		w := Writer{}
		w.Tags(tags)
		return maps.Clone(tags), w.B, err
	},
	"lifecycle": func(doc []byte) (any, []byte, error) {
		c, err := ParseLifecycle(doc)
		if err != nil {
			return nil, nil, err
		}
		w := Writer{}
		w.Lifecycle(c)
		for i := range c.Rules {
			c.Rules[i].ID = "" // one that the client leaves out is drawn by lot
		}
		return c, w.B, nil
	},
	"cors": func(doc []byte) (any, []byte, error) {
		rules, err := ParseCORS(doc)
		if err != nil {
			return nil, nil, err
		}
		kept, err := CheckCORS(doc)
		return rules, kept, err
	},
	"encryption": func(doc []byte) (any, []byte, error) {
		e, err := ParseEncryption(doc)
		if err != nil {
			return nil, nil, err
		}
		w := Writer{}
		w.Encryption(e)
		return e, w.B, nil
	},
	"object lock": func(doc []byte) (any, []byte, error) {
		d, err := ParseObjectLock(doc)
		if err != nil {
			return nil, nil, err
		}
		w := Writer{}
		w.ObjectLock(d)
		return d, w.B, nil
	},
	"retention": func(doc []byte) (any, []byte, error) {
		mode, until, err := ParseRetention(doc, time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
		return []any{mode, until}, nil, err
	},
	"legal hold": func(doc []byte) (any, []byte, error) {
		on, err := ParseLegalHold(doc)
		return on, nil, err
	},
	"ownership": func(doc []byte) (any, []byte, error) {
		mode, err := ParseOwnershipControls(doc)
		return mode, nil, err
	},
	"public access": func(doc []byte) (any, []byte, error) {
		kept, err := CheckPublicAccessBlock(doc)
		return ParsePublicAccessBlock(kept), kept, err
	},
	"acl": func(doc []byte) (any, []byte, error) {
		acl, err := ParseACLDocument(doc, "owner", nobody{})
		if err != nil {
			return nil, nil, err
		}
		if kept := ParseACL(acl.Text("owner"), "owner"); !slices.Equal(kept, acl) {
			return nil, nil, fmt.Errorf("%v was kept as %v", acl, kept)
		}
		w := Writer{}
		w.AccessControlPolicy("owner", acl)
		slices.SortFunc(acl, func(a, b Grant) int {
			return strings.Compare(a.Grantee+string(a.Permission), b.Grantee+string(b.Permission))
		})
		return acl, w.B, nil // in no order
	},
	"website": func(doc []byte) (any, []byte, error) {
		site, err := ParseWebsite(doc)
		if err != nil {
			return nil, nil, err
		}
		kept, err := CheckWebsite(doc)
		return site, kept, err
	},
	"notification": func(doc []byte) (any, []byte, error) {
		c, err := ParseNotification(doc)
		if err != nil || c == nil {
			return c, nil, err
		}
		w := Writer{}
		w.Notification(c)
		for i := range c.Rules {
			c.Rules[i].ID = "" // one that the client leaves out is drawn by lot
		}
		return c, w.B, nil
	},
	"logging": func(doc []byte) (any, []byte, error) {
		l, err := ParseLogging(doc)
		w := Writer{}
		w.Logging(l)
		return l, w.B, err
	},
}

// FuzzDocuments reads any document as each of those that clients send: it is refused as S3
// refuses it, or read; what is read reads the same with other white space between its
// elements and, written, is read as the same again; and no document type or second
// root comes through.
func FuzzDocuments(f *testing.F) {
	for _, doc := range []string{
		"<Delete><Quiet>true</Quiet><Object><Key>a</Key><VersionId>v</VersionId><ETag>e</ETag><Size>1</Size></Object></Delete>",
		"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>x</ETag></Part><Part><PartNumber>7</PartNumber><ETag>&quot;y&quot;</ETag></Part></CompleteMultipartUpload>",
		"<CreateBucketConfiguration><LocationConstraint>eu</LocationConstraint><Tags><Tag><Key>k</Key><Value>v</Value></Tag></Tags></CreateBucketConfiguration>",
		"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>",
		"<Tagging><TagSet><Tag><Key>a</Key><Value>b &lt;</Value></Tag></TagSet></Tagging>", "<Tagging><TagSet></TagSet></Tagging>",
		"<Tagging><TagSet><Tag><Key>a</Key><Value>b +</Value></Tag><Tag><Key>b</Key><Value></Value></Tag></TagSet></Tagging>",
		"<LifecycleConfiguration><Rule><ID>r</ID><Filter><And><Prefix>p/</Prefix><Tag><Key>k</Key><Value>v</Value></Tag><ObjectSizeGreaterThan>5</ObjectSizeGreaterThan></And></Filter>" +
			"<Status>Enabled</Status><Expiration><Days>3</Days></Expiration><NoncurrentVersionExpiration><NoncurrentDays>2</NoncurrentDays></NoncurrentVersionExpiration></Rule></LifecycleConfiguration>",
		"<LifecycleConfiguration><Rule><Prefix>p</Prefix><Status>Disabled</Status><AbortIncompleteMultipartUpload><DaysAfterInitiation>7</DaysAfterInitiation></AbortIncompleteMultipartUpload></Rule></LifecycleConfiguration>",
		"<CORSConfiguration><CORSRule><AllowedOrigin>https://*.x</AllowedOrigin><AllowedMethod>GET</AllowedMethod><AllowedHeader>x-*</AllowedHeader><MaxAgeSeconds>5</MaxAgeSeconds></CORSRule></CORSConfiguration>",
		"<ServerSideEncryptionConfiguration><Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>aws:kms</SSEAlgorithm><KMSMasterKeyID>k</KMSMasterKeyID></ApplyServerSideEncryptionByDefault><BucketKeyEnabled>true</BucketKeyEnabled></Rule></ServerSideEncryptionConfiguration>",
		"<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention><Mode>GOVERNANCE</Mode><Days>1</Days></DefaultRetention></Rule></ObjectLockConfiguration>",
		"<Retention><Mode>COMPLIANCE</Mode><RetainUntilDate>2030-01-01T00:00:00Z</RetainUntilDate></Retention>",
		"<LegalHold><Status>ON</Status></LegalHold>",
		"<OwnershipControls><Rule><ObjectOwnership>ObjectWriter</ObjectOwnership></Rule></OwnershipControls>",
		"<PublicAccessBlockConfiguration><BlockPublicAcls>true</BlockPublicAcls></PublicAccessBlockConfiguration>",
		`<AccessControlPolicy xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><Owner><ID>owner</ID></Owner><AccessControlList><Grant><Grantee xsi:type="CanonicalUser"><ID>owner</ID></Grantee><Permission>READ</Permission></Grant>` +
			`<Grant><Grantee xsi:type="Group"><URI>http://acs.amazonaws.com/groups/global/AllUsers</URI></Grantee><Permission>READ</Permission></Grant></AccessControlList></AccessControlPolicy>`,
		"<WebsiteConfiguration><IndexDocument><Suffix>i</Suffix></IndexDocument><RoutingRules><RoutingRule><Condition><KeyPrefixEquals>a</KeyPrefixEquals></Condition><Redirect><HostName>h</HostName></Redirect></RoutingRule></RoutingRules></WebsiteConfiguration>",
		"<NotificationConfiguration><QueueConfiguration><Id>1</Id><Queue>arn:ashlar:sqs::lake:webhook</Queue><Event>s3:ObjectCreated:*</Event><Filter><S3Key><FilterRule><Name>Prefix</Name><Value>a</Value></FilterRule></S3Key></Filter></QueueConfiguration></NotificationConfiguration>",
		"<BucketLoggingStatus><LoggingEnabled><TargetBucket>b</TargetBucket><TargetPrefix>p</TargetPrefix><TargetObjectKeyFormat><PartitionedPrefix><PartitionDateSource>EventTime</PartitionDateSource></PartitionedPrefix></TargetObjectKeyFormat></LoggingEnabled></BucketLoggingStatus>",
		`<!DOCTYPE x [<!ENTITY e "v">]><Delete><Object><Key>&e;</Key></Object></Delete>`, "<a/><b/>", strings.Repeat("<a>", 40), "\uFEFF<Delete/>",
	} {
		f.Add([]byte(doc))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		for name, read := range readers {
			got, written, err := read(doc)
			if err != nil {
				if strings.HasPrefix(codeOf(err), "not an S3") || codeOf(err) == "InternalError" {
					t.Fatalf("%s: %v", name, err)
				}
				continue
			}
			if strings.Contains(string(doc), "<!DOCTYPE") && !strings.Contains(string(doc), "<!--") && !strings.Contains(string(doc), "<![CDATA[") {
				t.Fatalf("%s: a document with a type was read", name)
			}
			if again, _, err := read(append([]byte("\n\t"), append(doc, " \n"...)...)); len(doc) > 0 && doc[0] == '<' && doc[min(1, len(doc)-1)] != '?' && (err != nil || !reflect.DeepEqual(again, got)) {
				t.Fatalf("%s: with space around it %q was read as %+v instead of %+v: %v", name, doc, again, got, err)
			}
			if _, _, err := read(append(doc[:len(doc):len(doc)], "<x/>"...)); len(doc) > 0 && err == nil {
				t.Fatalf("%s: a second root was read", name)
			}
			if written == nil {
				continue
			}
			if again, _, err := read(written); err != nil || !reflect.DeepEqual(again, got) {
				t.Fatalf("%s: %q was written as %q, which was read as %+v instead of %+v: %v", name, doc, written, again, got, err)
			}
		}
	})
}

// FuzzRange compares with counting: the bytes of a range are those whose places lie in it.
func FuzzRange(f *testing.F) {
	for _, header := range []string{"bytes=0-5", "bytes=5-", "bytes=-3", "bytes=9-2", "bytes=0-99999999999999999999", "bytes=18446744073709551615-", "bytes=-0", "bytes=1-2,3-4", "bytes =1-2", "bytes=+1-2"} {
		f.Add(header, uint8(7))
	}
	f.Fuzz(func(t *testing.T, header string, size uint8) {
		r, ok, err := ParseRange(header, uint64(size))
		var first, last string
		if spec, is := strings.CutPrefix(header, "bytes="); is {
			first, last, is = strings.Cut(spec, "-")
			if !is || strings.Trim(first+last, "0123456789") != "" || first+last == "" {
				first, last = "", ""
			}
		}
		at := func(digits string) int { // a place, or one behind every object
			digits = strings.TrimLeft(digits, "0")
			if len(digits) > 3 {
				return 1000
			}
			n, _ := strconv.Atoi(digits) // digits, or none for 0
			return n
		}
		asked := map[int]bool{}
		for i := range int(size) {
			switch {
			case first != "" && last != "":
				asked[i] = at(first) <= i && i <= at(last)
			case first != "":
				asked[i] = at(first) <= i
			case last != "":
				asked[i] = i >= int(size)-at(last)
			}
		}
		backward := first != "" && last != "" && len(strings.TrimLeft(first, "0")) <= 3 && len(strings.TrimLeft(last, "0")) <= 3 && at(last) < at(first)
		n := 0
		for i := range int(size) {
			if asked[i] {
				n++
			}
			if in := ok && err == nil && r.Offset <= uint64(i) && uint64(i) < r.Offset+r.Length; in != asked[i] && !backward {
				t.Fatalf("%q of %d: byte %d is in %+v: %v", header, size, i, r, in)
			}
		}
		if ok && err == nil && int(r.Length) != n {
			t.Fatalf("%q of %d: %+v holds %d bytes", header, size, r, n)
		}
		if err != nil && (codeOf(err) != "InvalidRange" || n > 0) {
			t.Fatalf("%q of %d: %v", header, size, err)
		}
		strict, err := ParseCopyRange(header, uint64(size))
		if err == nil && (first == "" || last == "" || strict.Length == 0 || strict != r) {
			t.Fatalf("%q of %d as the range of a source: %+v", header, size, strict)
		}
		if err != nil && codeOf(err) != "InvalidArgument" {
			t.Fatal(err)
		}
	})
}

// FuzzCopySource: what is read names a bucket and a key that, written, are read as the
// same again; and any pair that may be is found in what a client writes.
func FuzzCopySource(f *testing.F) {
	f.Add("/bkt/k%20?versionId=null", "bkt", "a/../b")
	f.Add("bucket/%2e%2e/k", "bucket", "ä+&?=")
	f.Add("arn:aws:s3:::b/k", "bucket.b", "//")
	f.Add("bucket/k?versionId=", "xyz", "\\")
	f.Fuzz(func(t *testing.T, source, bucket, key string) {
		write := func(b Bucket, k Key, version string) string {
			out := string(AppendEscaped([]byte("/"+string(b)+"/"), string(k), true))
			if version != "" {
				out += "?versionId=" + version
			}
			return out
		}
		b, k, version, err := ParseCopySource(source)
		if err == nil {
			b2, k2, version2, err := ParseCopySource(write(b, k, version))
			if err != nil || b2 != b || k2 != k || version2 != version {
				t.Fatalf("%q: %q %q %q, then %q %q %q %v", source, b, k, version, b2, k2, version2, err)
			}
		} else if c := codeOf(err); c != "InvalidArgument" && c != "InvalidURI" && c != "KeyTooLongError" && c != "NotImplemented" {
			t.Fatalf("%q: %v", source, err)
		}
		wantB, err := ParseBucket(bucket)
		if err != nil {
			return
		}
		wantK, err := ParseKey(key)
		if err != nil {
			return
		}
		if b, k, _, err := ParseCopySource(write(wantB, wantK, "")); err != nil || b != wantB || k != wantK {
			t.Fatalf("%q/%q: %q %q %v", bucket, key, b, k, err)
		}
	})
}

// FuzzPostPolicy: a policy that is read judges by all that it says. A form that passes
// fits every condition, and none passes with a field that no condition names.
func FuzzPostPolicy(f *testing.F) {
	const until = `{"expiration":"2030-01-01T00:00:00Z","conditions":`
	for _, doc := range []string{until + `[{"bucket":"b"},["starts-with","$key","up/"],["content-length-range",1,"9"]]}`, until + `[]}`, `{}`, `[]`, until + `[["eq","$key","k"]]}x`,
		until + `[{"key":"k","acl":"private"},["EQ","$Bucket","b"]]}`} {
		f.Add([]byte(doc), "key", "up/k", "acl", "private")
	}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, doc []byte, name1, value1, name2, value2 string) {
		p, err := ParsePostPolicy(base64.StdEncoding.EncodeToString(doc))
		if err != nil {
			if codeOf(err) != "InvalidPolicyDocument" {
				t.Fatal(err)
			}
			return
		}
		if p.BytesMin < 0 || p.BytesMax < -1 {
			t.Fatalf("%q: sizes from %d to %d", doc, p.BytesMin, p.BytesMax)
		}
		fields := map[string]string{strings.ToLower(name1): value1, strings.ToLower(name2): value2}
		if err := p.Judge(fields, now); err != nil {
			if codeOf(err) != "AccessDenied" {
				t.Fatal(err)
			}
			return
		}
		for i := range p.conditions {
			c := &p.conditions[i]
			if got := fields[c.field]; c.prefix && !strings.HasPrefix(got, c.value) || !c.prefix && got != c.value {
				t.Fatalf("%q let %v through against %v", doc, fields, c)
			}
		}
		fields["never-heard-of"] = "x"
		if err := p.Judge(fields, now); err == nil && !strings.Contains(strings.ToLower(string(doc)), "never-heard-of") {
			t.Fatalf("%q let a field through that it does not name", doc)
		}
		if err := p.Judge(fields, p.expires); err == nil {
			t.Fatalf("%q is good when it has expired", doc)
		}
	})
}
