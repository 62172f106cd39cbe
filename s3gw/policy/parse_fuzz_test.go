package policy

import (
	"bytes"
	"encoding/json"
	"testing"
)

// objects counts the objects of a document, and adds a member to the nth of them.
func objects(v any, count *int, nth int) {
	switch v := v.(type) {
	case map[string]any:
		if *count++; *count-1 == nth {
			v["NeverHeardOf"] = "x"
		}
		for name, member := range v {
			if name != "NeverHeardOf" {
				objects(member, count, nth)
			}
		}
	case []any:
		for _, member := range v {
			objects(member, count, nth)
		}
	}
}

// FuzzParse reads any document as a policy of each kind. What is read means the same
// however it is spaced, and nothing that is not known is passed over, wherever it stands.
func FuzzParse(f *testing.F) {
	for _, doc := range []string{
		bucketPolicy(everybody + `,"Action":"s3:GetObject","Resource":"arn:aws:s3:::b/*"`),
		bucketPolicy(`"Principal":{"AWS":["111","arn:aws:iam::111:user/u"]},"NotAction":["s3:Put*"],"NotResource":"arn:aws:s3:::b/x?","Condition":{"StringLike":{"s3:prefix":["a*","b"]},"Bool":{"aws:SecureTransport":"true"}}`),
		bucketPolicy(`"NotPrincipal":{"AWS":"111"},"Sid":"s","Action":"*","Resource":"*","Condition":{"IpAddress":{"aws:SourceIp":"10.0.0.0/8"},"NumericLessThan":{"s3:max-keys":10}}`),
		`{"Version":"2012-10-17","Id":"i","Statement":{"Effect":"Deny","Action":["s3:*","sts:AssumeRole"],"Resource":["arn:aws:s3:::*"]}}`,
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Federated":"https://issuer"},"Action":"sts:AssumeRoleWithWebIdentity","Condition":{"StringEquals":{"issuer:sub":"x"}}}]}`,
		`{"Statement":[]}`, `{"Statement":[{}],"Statement":[]}`, `[]`, `{`, `{"Version":"2008-10-17","Statement":[{"Effect":"allow"}]}`,
	} {
		f.Add([]byte(doc))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		for _, kind := range []Kind{Bucket, Identity, Trust} {
			p, err := Parse(doc, kind, "b")
			if err != nil {
				if p != nil || err.Error() == "" {
					t.Fatalf("%q: refused with a policy or without a word", doc)
				}
				continue
			}
			var spaced bytes.Buffer
			if err := json.Indent(&spaced, doc, " ", "\t"); err != nil {
				t.Fatalf("%q is no JSON and was read: %v", doc, err)
			}
			again, err := Parse(spaced.Bytes(), kind, "b")
			if spaced.Len() <= IdentityBytesMax {
				if err != nil || again.Public() != p.Public() || again.AllowsAllBut() != p.AllowsAllBut() {
					t.Fatalf("%q: with other spaces it is another policy: %v", doc, err)
				}
				for _, action := range []string{"s3:GetObject", "s3:PutObject", "sts:AssumeRole"} {
					q := Request{Principal: Principal{Account: "111", ARNs: []string{"arn:aws:iam::111:user/u"}}, Action: action, Resource: "arn:aws:s3:::b/xy", Values: context(nil)}
					if p.Evaluate(&q) != again.Evaluate(&q) {
						t.Fatalf("%q: with other spaces it decides otherwise", doc)
					}
				}
			}
			for nth, count := 0, 1; nth < count; nth++ {
				var tree any
				d := json.NewDecoder(bytes.NewReader(doc))
				d.UseNumber()
				if err := d.Decode(&tree); err != nil {
					t.Fatal(err)
				}
				count = 0
				objects(tree, &count, nth)
				more, err := json.Marshal(tree)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := Parse(more, kind, "b"); err == nil {
					t.Fatalf("%s: what is not known is passed over", more)
				}
			}
		}
	})
}
