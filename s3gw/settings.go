package s3gw

import (
	"net/http"

	"ashlar/s3gw/s3"
	"ashlar/s3gw/store"
)

// The names of what is configured for a bucket. They are part of the format of
// the metadata: never change one.
const (
	settingTags        = "tagging"
	settingCORS        = "cors"
	settingPublicBlock = "public-access-block"
	settingWebsite     = "website"
	settingLogging     = "logging"
)

// getSetting answers with a configuration as it was put, or with the error that
// AWS uses where there is none.
func getSetting(name string, missing s3.Code) func(*call) error {
	return func(c *call) error {
		doc, err := c.setting(name, missing)
		if err != nil {
			return err
		}
		c.sendXML(http.StatusOK, doc)
		return nil
	}
}

// setting returns a configuration of the bucket.
func (c *call) setting(name string, missing s3.Code) ([]byte, error) {
	doc, err := c.s.backend.Setting(c.ctx, string(c.bucket), name)
	if err != nil {
		return nil, withBucket(err, c.bucket)
	}
	if doc == nil {
		return nil, s3.E(missing, "").With("BucketName", string(c.bucket))
	}
	return doc, nil
}

// putSetting stores a configuration in the form that check makes of it.
func putSetting(name string, check func(doc []byte) ([]byte, error)) func(*call) error {
	return func(c *call) error {
		doc, err := c.document()
		if err != nil {
			return err
		}
		if doc, err = check(doc); err != nil {
			return err
		}
		if err := c.s.backend.PutSetting(c.ctx, string(c.bucket), name, doc); err != nil {
			return withBucket(err, c.bucket)
		}
		return c.empty(http.StatusOK)
	}
}

// changeSetting stores what decide makes of what the bucket says at that moment,
// not two seconds ago.
func (c *call) changeSetting(name string, decide func(*access) ([]byte, error)) error {
	err := c.s.backend.ChangeSetting(c.ctx, string(c.bucket), name, func(rec store.Access) ([]byte, error) { return decide(newAccess(rec)) })
	return withBucketOrNil(err, c.bucket)
}

// deleteSetting removes a configuration; it need not be there.
func deleteSetting(name string) func(*call) error {
	return func(c *call) error {
		if err := c.s.backend.PutSetting(c.ctx, string(c.bucket), name, nil); err != nil {
			return withBucket(err, c.bucket)
		}
		return c.empty(http.StatusNoContent)
	}
}
