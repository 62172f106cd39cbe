package policy

import (
	"errors"
	"strings"
	"testing"
)

const everybody = `"Principal":"*"`

// statement makes a policy for bucket "b" of one allowing statement.
func bucketPolicy(rest string) string {
	return `{"Version":"2012-10-17","Statement":[{"Effect":"Allow",` + rest + `}]}`
}

func mustParse(t testing.TB, doc string) *Policy {
	t.Helper()
	p, err := Parse([]byte(doc), Bucket, "b")
	if err != nil {
		t.Fatalf("%s: %v", doc, err)
	}
	return p
}

func context(keys map[string][]string) func(string) []string {
	return func(k string) []string { return keys[k] }
}

func TestConditions(t *testing.T) {
	const yes, no = true, false
	for _, c := range []struct {
		condition string
		values    map[string][]string
		holds     bool
	}{
		{`"StringEquals":{"s3:prefix":"a"}`, map[string][]string{"s3:prefix": {"a"}}, yes},
		{`"StringEquals":{"S3:PREFIX":["b","a"]}`, map[string][]string{"s3:prefix": {"a"}}, yes},
		{`"StringEquals":{"s3:prefix":"a*"}`, map[string][]string{"s3:prefix": {"ab"}}, no},
		{`"StringEquals":{"s3:prefix":"a"}`, nil, no},
		{`"StringEqualsIfExists":{"s3:prefix":"a"}`, nil, yes},
		{`"StringEqualsIfExists":{"s3:prefix":"a"}`, map[string][]string{"s3:prefix": {"b"}}, no},
		{`"StringNotEquals":{"s3:prefix":"a"}`, nil, yes},
		{`"StringNotEquals":{"s3:prefix":["a","b"]}`, map[string][]string{"s3:prefix": {"b"}}, no},
		{`"StringNotEquals":{"s3:prefix":["a","b"]}`, map[string][]string{"s3:prefix": {"c"}}, yes},
		{`"StringEqualsIgnoreCase":{"s3:prefix":"Ab"}`, map[string][]string{"s3:prefix": {"aB"}}, yes},
		{`"StringLike":{"s3:prefix":"a/*/c?"}`, map[string][]string{"s3:prefix": {"a/b/b/cd"}}, yes},
		{`"StringLike":{"s3:prefix":"a/*/c?"}`, map[string][]string{"s3:prefix": {"a/b/c"}}, no},
		{`"StringNotLike":{"s3:prefix":"a*"}`, map[string][]string{"s3:prefix": {"b"}}, yes},
		{`"StringLike":{"s3:prefix":"${aws:username}/*"}`, map[string][]string{"s3:prefix": {"ann/x"}, "aws:username": {"ann"}}, yes},
		{`"StringLike":{"s3:prefix":"${aws:username}/*"}`, map[string][]string{"s3:prefix": {"/x"}}, no},
		{`"StringLike":{"s3:prefix":"${aws:username, 'all'}/*"}`, map[string][]string{"s3:prefix": {"all/x"}}, yes},
		{`"StringLike":{"s3:prefix":"${aws:username}"}`, map[string][]string{"s3:prefix": {"anything"}, "aws:username": {"*"}}, no},
		{`"StringLike":{"s3:prefix":"a${*}b"}`, map[string][]string{"s3:prefix": {"axb"}}, no},
		{`"StringLike":{"s3:prefix":"a${*}b"}`, map[string][]string{"s3:prefix": {"a*b"}}, yes},
		{`"NumericLessThanEquals":{"s3:max-keys":10}`, map[string][]string{"s3:max-keys": {"10"}}, yes},
		{`"NumericLessThanEquals":{"s3:max-keys":"10"}`, map[string][]string{"s3:max-keys": {"11"}}, no},
		{`"NumericNotEquals":{"s3:max-keys":"10"}`, map[string][]string{"s3:max-keys": {"10.0"}}, no},
		{`"NumericGreaterThan":{"s3:max-keys":"10"}`, map[string][]string{"s3:max-keys": {"ten"}}, no},
		{`"DateGreaterThan":{"aws:CurrentTime":"2026-01-01T00:00:00Z"}`, map[string][]string{"aws:currenttime": {"2026-06-01T00:00:00Z"}}, yes},
		{`"DateLessThan":{"aws:EpochTime":"1000"}`, map[string][]string{"aws:epochtime": {"1001"}}, no},
		{`"Bool":{"aws:SecureTransport":false}`, map[string][]string{"aws:securetransport": {"false"}}, yes},
		{`"Bool":{"aws:SecureTransport":"true"}`, map[string][]string{"aws:securetransport": {"false"}}, no},
		{`"IpAddress":{"aws:SourceIp":["10.0.0.0/8","::1"]}`, map[string][]string{"aws:sourceip": {"10.9.8.7"}}, yes},
		{`"IpAddress":{"aws:SourceIp":"10.0.0.0/8"}`, map[string][]string{"aws:sourceip": {"::ffff:10.9.8.7"}}, yes},
		{`"IpAddress":{"aws:SourceIp":"10.0.0.0/8"}`, map[string][]string{"aws:sourceip": {"11.0.0.1"}}, no},
		{`"NotIpAddress":{"aws:SourceIp":"10.0.0.0/8"}`, map[string][]string{"aws:sourceip": {"11.0.0.1"}}, yes},
		{`"ArnLike":{"aws:PrincipalArn":"arn:aws:iam::1:user/*"}`, map[string][]string{"aws:principalarn": {"arn:aws:iam::1:user/a/b"}}, yes},
		{`"ArnLike":{"aws:PrincipalArn":"arn:aws:iam::*"}`, map[string][]string{"aws:principalarn": {"arn:aws:iam::1:user/a"}}, no},
		{`"ArnNotEquals":{"aws:PrincipalArn":"arn:aws:iam::1:user/a"}`, map[string][]string{"aws:principalarn": {"arn:aws:iam::1:user/b"}}, yes},
		{`"Null":{"aws:username":"true"}`, nil, yes},
		{`"Null":{"aws:username":"false"}`, nil, no},
		{`"Null":{"aws:username":"false"}`, map[string][]string{"aws:username": {"x"}}, yes},
		{`"ForAllValues:StringEquals":{"s3:RequestObjectTagKeys":["a","b"]}`, map[string][]string{"s3:requestobjecttagkeys": {"b", "a"}}, yes},
		{`"ForAllValues:StringEquals":{"s3:RequestObjectTagKeys":["a","b"]}`, map[string][]string{"s3:requestobjecttagkeys": {"b", "c"}}, no},
		{`"ForAllValues:StringEquals":{"s3:RequestObjectTagKeys":["a","b"]}`, nil, yes},
		{`"ForAnyValue:StringEquals":{"s3:RequestObjectTagKeys":["a","b"]}`, map[string][]string{"s3:requestobjecttagkeys": {"c", "b"}}, yes},
		{`"ForAnyValue:StringEquals":{"s3:RequestObjectTagKeys":["a","b"]}`, nil, no},
		{`"ForAnyValue:StringNotEquals":{"s3:RequestObjectTagKeys":["a","b"]}`, map[string][]string{"s3:requestobjecttagkeys": {"a", "c"}}, yes},
		{`"StringEquals":{"s3:prefix":"a"},"StringLike":{"aws:username":"x*"}`, map[string][]string{"s3:prefix": {"a"}, "aws:username": {"y"}}, no},
	} {
		p := mustParse(t, bucketPolicy(everybody+`,"Action":"s3:ListBucket","Resource":"arn:aws:s3:::b","Condition":{`+c.condition+`}`))
		got := p.Evaluate(&Request{Principal: Principal{Anonymous: true}, Action: "s3:ListBucket", Resource: "arn:aws:s3:::b", Values: context(c.values)})
		if (got == Allow) != c.holds {
			t.Errorf("%s with %v: %v", c.condition, c.values, got)
		}
	}
}

func TestPrincipals(t *testing.T) {
	ann := Principal{Account: "111", Canonical: strings.Repeat("a", 64), ARNs: []string{"arn:aws:iam::111:user/ann"}}
	root := Principal{Root: true, Account: "111", Canonical: strings.Repeat("a", 64), ARNs: []string{"arn:aws:iam::111:root"}}
	for _, c := range []struct {
		principal       string
		ann, root, anon Decision
	}{
		{`"Principal":"*"`, Allow, Allow, Allow},
		{`"Principal":{"AWS":"*"}`, Allow, Allow, Allow},
		{`"Principal":{"AWS":["222","111"]}`, Delegated, Allow, None},
		{`"Principal":{"AWS":"arn:aws:iam::111:root"}`, Delegated, Allow, None},
		{`"Principal":{"AWS":"arn:aws:iam::111:user/ann"}`, Allow, None, None},
		{`"Principal":{"AWS":"arn:aws:iam::222:user/ann"}`, None, None, None},
		{`"Principal":{"CanonicalUser":"` + strings.Repeat("a", 64) + `"}`, Delegated, Allow, None},
		{`"Principal":{"Service":"logging.s3.amazonaws.com"}`, None, None, None},
		{`"NotPrincipal":{"AWS":"arn:aws:iam::222:root"}`, Allow, Allow, Allow},
		{`"NotPrincipal":{"AWS":"111"}`, None, None, Allow},
	} {
		p := mustParse(t, bucketPolicy(c.principal+`,"Action":"s3:*","Resource":"arn:aws:s3:::b/*"`))
		for who, want := range map[*Principal]Decision{&ann: c.ann, &root: c.root, {Anonymous: true}: c.anon} {
			if got := p.Evaluate(&Request{Principal: *who, Action: "s3:GetObject", Resource: "arn:aws:s3:::b/k"}); got != want {
				t.Errorf("%s for %+v: %v, want %v", c.principal, *who, got, want)
			}
		}
	}
}

func TestMalformed(t *testing.T) {
	good := everybody + `,"Action":"s3:GetObject","Resource":"arn:aws:s3:::b/*"`
	mustParse(t, bucketPolicy(good))
	for _, doc := range []string{
		``, `[]`, `{`, `{}`, bucketPolicy(good) + `x`, `{"Version":"2012-10-17","Statement":[]}`, `{"Version":"2020-01-01","Statement":[{"Effect":"Allow",` + good + `}]}`,
		bucketPolicy(good + `,"Extra":1`), bucketPolicy(good + `,"Action":"s3:*"`), bucketPolicy(good + `,"NotAction":"s3:*"`),
		bucketPolicy(`"Action":"s3:GetObject","Resource":"arn:aws:s3:::b/*"`), bucketPolicy(everybody + `,"Resource":"arn:aws:s3:::b/*"`),
		bucketPolicy(everybody + `,"Action":"s3:GetObject"`), bucketPolicy(everybody + `,"Action":[],"Resource":"arn:aws:s3:::b/*"`),
		bucketPolicy(everybody + `,"Action":"s3:GetObjekt","Resource":"arn:aws:s3:::b/*"`), bucketPolicy(everybody + `,"Action":"iam:GetUser","Resource":"arn:aws:s3:::b/*"`),
		bucketPolicy(everybody + `,"Action":"s3:Gat*","Resource":"arn:aws:s3:::b/*"`),
		bucketPolicy(everybody + `,"Action":"s3:GetObject","Resource":"arn:aws:s3:::c/*"`), bucketPolicy(everybody + `,"Action":"s3:GetObject","Resource":"b/*"`),
		bucketPolicy(everybody + `,"Action":"s3:GetObject","Resource":"arn:aws:s3:::bb/*"`),
		bucketPolicy(`"Principal":"ann","Action":"s3:GetObject","Resource":"arn:aws:s3:::b/*"`), bucketPolicy(`"Principal":{"AWS":"arn:aws:iam::1:user/*"},"Action":"s3:GetObject","Resource":"arn:aws:s3:::b/*"`),
		bucketPolicy(`"Principal":{"AWS":"arn:aws:s3:::b"},"Action":"s3:GetObject","Resource":"arn:aws:s3:::b/*"`), bucketPolicy(`"Principal":{"Who":"x"},"Action":"s3:GetObject","Resource":"arn:aws:s3:::b/*"`),
		bucketPolicy(`"Principal":{"CanonicalUser":"abc"},"Action":"s3:GetObject","Resource":"arn:aws:s3:::b/*"`), bucketPolicy(`"Principal":{},"Action":"s3:GetObject","Resource":"arn:aws:s3:::b/*"`),
		bucketPolicy(good + `,"Condition":{"StringSame":{"s3:prefix":"a"}}`), bucketPolicy(good + `,"Condition":{"StringEquals":{"s3:never":"a"}}`),
		bucketPolicy(good + `,"Condition":{"StringEquals":{"foo:bar":"a"}}`), bucketPolicy(good + `,"Condition":{"StringEquals":{"s3:ExistingObjectTag/":"a"}}`),
		bucketPolicy(good + `,"Condition":{"NumericEquals":{"s3:max-keys":"ten"}}`), bucketPolicy(good + `,"Condition":{"NumericEquals":{"s3:max-keys":"1e999999999"}}`),
		bucketPolicy(good + `,"Condition":{"IpAddress":{"aws:SourceIp":"10.0.0.0/33"}}`), bucketPolicy(good + `,"Condition":{"Bool":{"aws:SecureTransport":"maybe"}}`),
		bucketPolicy(good + `,"Condition":{"DateEquals":{"aws:CurrentTime":"soon"}}`), bucketPolicy(good + `,"Condition":{"StringEquals":{"s3:prefix":[]}}`),
		bucketPolicy(good + `,"Condition":{"StringEquals":{"s3:prefix":null}}`), bucketPolicy(good + `,"Condition":{"StringLike":{"s3:prefix":"${aws:username"}}`),
		bucketPolicy(good + `,"Condition":{"StringLike":{"s3:prefix":"${what}"}}`), bucketPolicy(good + `,"Condition":{"NullIfExists":{"s3:prefix":"true"}}`),
		bucketPolicy(good + `,"Condition":{"StringEquals":{"s3:prefix":"a","S3:Prefix":"b"}}`), bucketPolicy(good + `,"Condition":[]`),
		`{"Version":"2012-10-17","Statement":[{"Sid":"x","Effect":"Allow",` + good + `},{"Sid":"x","Effect":"Deny",` + good + `}]}`,
		strings.Repeat("[", 100), bucketPolicy(good + `,"Condition":` + strings.Repeat(`{"a":`, 30) + `1` + strings.Repeat("}", 30)),
	} {
		if _, err := Parse([]byte(doc), Bucket, "b"); err == nil {
			t.Errorf("accepted: %s", doc)
		}
	}
	long := bucketPolicy(good + `,"Sid":"` + strings.Repeat("x", BucketBytesMax) + `"`)
	if _, err := Parse([]byte(long), Bucket, "b"); !errors.Is(err, ErrTooLarge) {
		t.Error("too large:", err)
	}
}

func TestPublic(t *testing.T) {
	for statement, public := range map[string]bool{
		everybody: true, `"Principal":{"AWS":"*"}`: true, `"Principal":{"AWS":"111"}`: false, `"NotPrincipal":{"AWS":"111"}`: true,
		everybody + `,"Condition":{"IpAddress":{"aws:SourceIp":"10.0.0.0/8"}}`:                         false,
		everybody + `,"Condition":{"IpAddress":{"aws:SourceIp":"0.0.0.0/0"}}`:                          true,
		everybody + `,"Condition":{"IpAddress":{"aws:SourceIp":["10.0.0.0/8","::/0"]}}`:                true,
		everybody + `,"Condition":{"NotIpAddress":{"aws:SourceIp":"10.0.0.0/8"}}`:                      true,
		everybody + `,"Condition":{"StringEquals":{"aws:PrincipalAccount":"111"}}`:                     false,
		everybody + `,"Condition":{"StringLike":{"aws:PrincipalAccount":"1*"}}`:                        true,
		everybody + `,"Condition":{"StringEqualsIfExists":{"aws:SourceVpc":"vpc-1"}}`:                  true,
		everybody + `,"Condition":{"StringEquals":{"s3:prefix":"a"}}`:                                  true,
		everybody + `,"Condition":{"ArnLike":{"aws:PrincipalArn":"arn:aws:iam::111:user/*"}}`:          false,
		everybody + `,"Condition":{"ArnLike":{"aws:PrincipalArn":"arn:aws:iam::*:user/ann"}}`:          true,
		everybody + `,"Condition":{"StringEquals":{"s3:prefix":"a","aws:SourceAccount":"111"}}`:        false,
		everybody + `,"Condition":{"StringEquals":{"aws:PrincipalAccount":"${aws:PrincipalAccount}"}}`: true,
		everybody + `,"Condition":{"StringEquals":{"aws:userid":"AIDA1"}}`:                             false,
		everybody + `,"Condition":{"StringEquals":{"aws:userid":["AIDA1","anonymous"]}}`:               true,
		everybody + `,"Condition":{"ForAllValues:StringEquals":{"aws:PrincipalAccount":"111"}}`:        true,
	} {
		p := mustParse(t, bucketPolicy(statement+`,"Action":"s3:GetObject","Resource":"arn:aws:s3:::b/*"`))
		if p.Public() != public {
			t.Errorf("%s: public is %v", statement, !public)
		}
	}
	deny := mustParse(t, strings.Replace(bucketPolicy(everybody+`,"Action":"s3:GetObject","Resource":"arn:aws:s3:::b/*"`), "Allow", "Deny", 1))
	if deny.Public() {
		t.Error("a denial is public")
	}
}

func TestKinds(t *testing.T) {
	identity := `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":["s3:*","iam:Get*"],"Resource":"*"}}`
	p, err := Parse([]byte(identity), Identity, "")
	if err != nil {
		t.Fatal(err)
	}
	if d := p.Evaluate(&Request{Action: "IAM:getuser", Resource: "arn:aws:iam::1:user/x"}); d != Allow {
		t.Error(d)
	}
	if _, err := Parse([]byte(identity), Bucket, "b"); err == nil {
		t.Error("an identity policy was taken for a bucket's")
	}
	trust := `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"sts:AssumeRoleWithWebIdentity","Principal":{"Federated":"arn:aws:iam::1:oidc-provider/id.example"},"Condition":{"StringEquals":{"id.example:aud":"app"}}}}`
	if p, err = Parse([]byte(trust), Trust, ""); err != nil {
		t.Fatal(err)
	}
	ask := Request{Principal: Principal{ARNs: []string{"arn:aws:iam::1:oidc-provider/id.example"}}, Action: "sts:AssumeRoleWithWebIdentity",
		Values: context(map[string][]string{"id.example:aud": {"app"}})}
	if d := p.Evaluate(&ask); d != Allow {
		t.Error(d)
	}
}

func TestRefusalsAreWordedAsS3WordsThem(t *testing.T) {
	for doc, want := range map[string]string{
		"x":                "Policies must be valid JSON and the first byte must be '{'",
		`{"Version":`:      "This policy contains invalid Json",
		`{}`:               "Missing required field Statement",
		`{"Statement":[]}`: "Could not parse the policy: Statement is empty!",
		bucketPolicy(`"Principal":"ann","Action":"s3:GetObject","Resource":"arn:aws:s3:::b/*"`):            "Invalid principal in policy",
		bucketPolicy(`"Principal":{"AWS":[]},"Action":"s3:GetObject","Resource":"arn:aws:s3:::b/*"`):       "Invalid principal in policy",
		bucketPolicy(everybody + `,"Action":"s3:Nothing","Resource":"arn:aws:s3:::b/*"`):                   "Policy has invalid action",
		bucketPolicy(everybody + `,"Action":"s3:GetObject","Resource":[]`):                                 "Policy has invalid resource",
		`{"Statement":[{"Effect":"Maybe",` + everybody + `,"Action":"s3:*","Resource":"arn:aws:s3:::b"}]}`: "Invalid effect: Maybe",
	} {
		if _, err := Parse([]byte(doc), Bucket, "b"); err == nil || err.Error() != want {
			t.Errorf("%s: got %v, want %q", doc, err, want)
		}
	}
}
