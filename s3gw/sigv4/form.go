package sigv4

import (
	"context"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
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
func (v *Verifier) VerifyForm(ctx context.Context, fields map[string]string) (*Auth, error) {
	if fields["policy"] == "" {
		return nil, s3.E(s3.AccessDenied, "") // an anonymous upload
	}
	auth, signed, err := v.formClaim(fields)
	if err != nil {
		return nil, err
	}
	found, err := v.Credentials.Lookup(ctx, auth.AccessKey, fields["x-amz-security-token"])
	if err != nil {
		return nil, lookupError(err, auth.AccessKey)
	}
	if !signed(found.Secret) {
		return nil, s3.E(s3.SignatureDoesNotMatch, "").With("AWSAccessKeyId", auth.AccessKey).
			With("StringToSign", fields["policy"]).With("SignatureProvided", fields["x-amz-signature"]+fields["signature"]).
			With("StringToSignBytes", fmt.Sprintf("% x", fields["policy"]))
	}
	auth.Account, auth.Holder, auth.Service = found.Account, found.Holder, serviceS3
	return auth, nil
}

// formClaim returns what a form says of its signature, and the function that says
// whether the policy is signed with a secret.
func (v *Verifier) formClaim(fields map[string]string) (auth *Auth, signed func(secret string) bool, err error) {
	policy := fields["policy"]
	if fields["x-amz-algorithm"] == "" && fields["x-amz-credential"] == "" {
		accessKey, given := fields["awsaccesskeyid"], fields["signature"]
		if accessKey == "" || given == "" {
			return nil, nil, missingField("x-amz-credential")
		}
		return &Auth{AccessKey: accessKey, Version2: true}, func(secret string) bool {
			return equal(sign2(secret, []byte(policy)), given)
		}, nil
	}
	if fields["x-amz-algorithm"] != algorithm {
		return nil, nil, badField("X-Amz-Algorithm", fields["x-amz-algorithm"], "Only "+algorithm+" is supported")
	}
	for _, name := range []string{"x-amz-credential", "x-amz-date", "x-amz-signature"} {
		if fields[name] == "" {
			return nil, nil, missingField(name)
		}
	}
	var c claim
	credential := fields["x-amz-credential"]
	why := c.setCredential(credential, serviceS3)
	if why == "" {
		why = v.wrongRegion(c.region)
	}
	if why != "" {
		return nil, nil, badField("x-amz-credential", credential, why)
	}
	at, err := time.Parse(stampLayout, fields["x-amz-date"])
	if err != nil {
		return nil, nil, badField("X-Amz-Date", fields["x-amz-date"], "X-Amz-Date must be formated via ISO8601 Long format")
	}
	if c.date != at.Format(dateLayout) {
		return nil, nil, badField("x-amz-credential", credential, "Invalid credential date. Date is not the same as X-Amz-Date.")
	}
	return &Auth{AccessKey: c.accessKey, Time: at}, func(secret string) bool {
		name := keyName{c.accessKey, c.date, c.region, c.service}
		key := v.keys.get(name, secret)
		sum := key.mac([]byte(policy))
		good := equal(hex.EncodeToString(sum[:]), fields["x-amz-signature"])
		if good {
			v.keys.keep(name, key)
		}
		return good
	}, nil
}

func equal(want, given string) bool {
	return subtle.ConstantTimeCompare([]byte(want), []byte(given)) == 1
}

func missingField(names string) error {
	return badField(names, "", "Bucket POST must contain a field named '"+names+"'.  If it is specified, please check the order of the fields.")
}

func badField(name, value, why string) error {
	return s3.E(s3.InvalidArgument, why).With("ArgumentName", name).With("ArgumentValue", strings.ToValidUTF8(value, "?"))
}
