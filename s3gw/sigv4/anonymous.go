package sigv4

import (
	"net/http"
	"strings"

	"ashlar/s3gw/s3"
)

// Anonymous reports whether a request brings no credentials at all, in no place.
// One that tries to, in whatever way, is for Verify to judge.
func Anonymous(r *http.Request, q s3.Query) bool {
	if len(r.Header["Authorization"]) > 0 || len(r.Header["X-Amz-Security-Token"]) > 0 {
		return false
	}
	for i := range q {
		switch name := q[i].Name; {
		case name == "AWSAccessKeyId", name == "Signature":
			return false
		case len(name) > len("X-Amz-") && strings.EqualFold(name[:len("X-Amz-")], "X-Amz-"):
			return false
		}
	}
	return true
}

// AnonymousAuth is the Auth of a request for which Anonymous holds. Its body may
// be hashed or framed, but no chunk can be signed.
func AnonymousAuth(r *http.Request) (*Auth, error) {
	a := &Auth{}
	if v := r.Header.Get("X-Amz-Content-Sha256"); v != "" {
		var err error
		if a.Payload, err = parsePayload(v); err != nil {
			return nil, err
		}
	}
	if a.Payload.Signed() {
		return nil, s3.E(s3.AccessDenied, "A request without credentials cannot sign its chunks.")
	}
	return a, nil
}
