package sigv4

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"strings"
	"time"

	"ashlar/s3gw/s3"
)

// VerifyForm decides who signed the policy of a POST form. fields holds the
// form's fields by lower-case name. The signature covers the policy and nothing
// else: what the other fields may be is for the policy to say (s3.PostPolicy).
//
// Forms may also be signed as AWS's oldest regions allow it, with an HMAC-SHA1
// of the policy: pages that were written for them go on working. Every error is
// an *s3.Error.
func (v *Verifier) VerifyForm(fields map[string]string) (*Auth, error) {
	if fields["policy"] == "" {
		return nil, s3.E(s3.AccessDenied, "") // an anonymous upload
	}
	if _, has := fields["x-amz-security-token"]; has {
		return nil, s3.E(s3.InvalidToken, "") // keys are permanent: none has a token
	}
	auth, signed, err := v.formClaim(fields)
	if err != nil {
		return nil, err
	}
	secret, account, err := v.credentials.Lookup(auth.AccessKey)
	switch {
	case errors.Is(err, ErrUnknownKey):
		return nil, s3.E(s3.InvalidAccessKeyID, "").With("AWSAccessKeyId", auth.AccessKey)
	case err != nil:
		return nil, s3.Classify(err)
	}
	if !signed(secret) {
		return nil, s3.E(s3.SignatureDoesNotMatch, "").With("AWSAccessKeyId", auth.AccessKey)
	}
	auth.Account = account
	return auth, nil
}

// formClaim returns what a form says of its signature, and the function that says
// whether the policy is signed with a secret.
func (v *Verifier) formClaim(fields map[string]string) (auth *Auth, signed func(secret string) bool, err error) {
	policy := fields["policy"]
	if fields["x-amz-algorithm"] == "" && fields["x-amz-credential"] == "" {
		accessKey, given := fields["awsaccesskeyid"], fields["signature"]
		if accessKey == "" || given == "" {
			return nil, nil, missingField("AWSAccessKeyId and signature, or x-amz-credential and x-amz-signature")
		}
		return &Auth{AccessKey: accessKey, Version2: true}, func(secret string) bool {
			h := hmac.New(sha1.New, []byte(secret))
			h.Write([]byte(policy))
			return equal(base64.StdEncoding.EncodeToString(h.Sum(nil)), given)
		}, nil
	}
	if fields["x-amz-algorithm"] != algorithm {
		return nil, nil, s3.E(s3.InvalidArgument, "x-amz-algorithm must be "+algorithm)
	}
	scope := strings.Split(fields["x-amz-credential"], "/")
	at, err := time.Parse(stampLayout, fields["x-amz-date"])
	switch {
	case fields["x-amz-signature"] == "":
		return nil, nil, missingField("x-amz-signature")
	case err != nil:
		return nil, nil, missingField("x-amz-date")
	case len(scope) != 5 || scope[0] == "" || scope[1] != at.Format(dateLayout) || scope[2] != v.region || scope[3] != service || scope[4] != scopeTail:
		return nil, nil, s3.E(s3.InvalidArgument, "The x-amz-credential of the form is not ACCESS-KEY/DATE/"+v.region+"/s3/aws4_request.")
	}
	return &Auth{AccessKey: scope[0], Time: at}, func(secret string) bool {
		sum := v.keys.get(scope[0], secret, scope[1], scope[2]).mac([]byte(policy))
		return equal(hex.EncodeToString(sum[:]), fields["x-amz-signature"])
	}, nil
}

func equal(want, given string) bool {
	return subtle.ConstantTimeCompare([]byte(want), []byte(given)) == 1
}

func missingField(names string) error {
	return s3.E(s3.InvalidArgument, "A form with a policy needs the field "+names+".")
}
