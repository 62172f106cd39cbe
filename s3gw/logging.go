package s3gw

import (
	"net/http"

	"ashlar/s3gw/policy"
	"ashlar/s3gw/s3"
)

// logService delivers access logs, in the words of policies.
const logService = "logging.s3.amazonaws.com"

func getLogging(c *call) error {
	a, err := c.freshAccess()
	if err != nil {
		return err
	}
	return c.xml(http.StatusOK, func(w *s3.Writer) { w.Logging(a.logging) })
}

// freshAccess is what the bucket says now, not two seconds ago.
func (c *call) freshAccess() (*access, error) {
	if _, err := c.s.backend.HeadBucket(c.ctx, string(c.bucket)); err != nil { // reads it anew
		return nil, withBucket(err, c.bucket)
	}
	rec, err := c.s.backend.Access(c.ctx, string(c.bucket))
	if err != nil {
		return nil, withBucket(err, c.bucket)
	}
	return c.s.accesses.of(rec), nil
}

// putLogging stores where the log of a bucket goes: to a bucket of the same owner
// that lets logs be delivered.
func putLogging(c *call) error {
	doc, err := c.document()
	if err != nil {
		return err
	}
	l, err := s3.ParseLogging(doc)
	if err != nil {
		return err
	}
	var kept []byte
	if l != nil {
		if err := c.checkLogTarget(l); err != nil {
			return err
		}
		var w s3.Writer
		w.Logging(l)
		kept = w.B
	}
	if err := c.s.backend.PutSetting(c.ctx, string(c.bucket), settingLogging, kept); err != nil {
		return withBucket(err, c.bucket)
	}
	return c.empty(http.StatusOK)
}

func (c *call) checkLogTarget(l *s3.Logging) error {
	refuse := func(why string) error {
		return s3.E(s3.InvalidTargetBucketForLogging, why).With("TargetBucket", l.Bucket)
	}
	name, err := s3.ParseBucket(l.Bucket)
	if err != nil {
		return refuse("The target bucket for logging does not exist")
	}
	target, err := c.access(name)
	if err != nil {
		if s3.Classify(err).Code == s3.NoSuchBucket {
			return refuse("The target bucket for logging does not exist")
		}
		return err
	}
	source, err := c.access(c.bucket)
	switch {
	case err != nil:
		return err
	case target.Owner != source.Owner:
		return refuse("The owner for the bucket to be logged and the target bucket must be the same.")
	case !c.s.mayDeliver(source, target, l.Prefix+"log"):
		return refuse("The target bucket does not let " + logService + " put objects under the prefix: allow it by a bucket policy, or give the " +
			"log-delivery group WRITE and READ_ACP permissions")
	}
	return nil
}

// mayDeliver reports whether a log of source may be put under a key of target.
func (s *Server) mayDeliver(source, target *access, key string) bool {
	values := map[string]string{
		"aws:sourcearn": s3ARN + source.Name, "aws:sourceaccount": s.accountID(source.Owner), "aws:principalisawsservice": "true",
		"aws:principalservicename": logService, "aws:securetransport": "true", "aws:requestedregion": s.region,
	}
	q := policy.Request{
		Principal: policy.Principal{ARNs: []string{logService}}, Action: "s3:PutObject", Resource: s3ARN + target.Name + "/" + key,
		Values: func(name string) []string { return only(values[name]) },
	}
	switch target.policy.Evaluate(&q) {
	case policy.Allow:
		return true
	case policy.Deny:
		return false
	}
	return target.ownership != s3.OwnerEnforced && target.acl.DeliversLogs()
}
