package s3gw

import (
	"net/http"

	"ashlar/s3gw/s3"
)

func putObjectTagging(c *call) error {
	doc, err := c.document()
	if err != nil {
		return err
	}
	tags, err := s3.ParseTagging(doc, s3.ObjectTagsMax)
	if err != nil {
		return err
	}
	return c.setTags(tags, http.StatusOK)
}

func deleteObjectTagging(c *call) error { return c.setTags(nil, http.StatusNoContent) }

func (c *call) setTags(tags map[string]string, status int) error {
	version, err := c.version()
	if err != nil {
		return err
	}
	version, err = c.s.backend.SetTags(c.ctx, string(c.bucket), string(c.key), version, tags)
	if err != nil {
		return c.readError(err)
	}
	c.versionHeader(version)
	return c.empty(status)
}

func putBucketTagging(c *call) error {
	return putSetting(settingTags, func(doc []byte) ([]byte, error) {
		tags, err := s3.ParseTagging(doc, s3.BucketTagsMax)
		if err != nil {
			return nil, err
		}
		return tagsDocument(tags), nil
	})(c)
}

// tagsDocument is what is kept of the tags of a bucket.
func tagsDocument(tags map[string]string) []byte {
	var w s3.Writer
	w.Tags(tags)
	return w.B
}

func getBucketTagging(c *call) error { return getSetting(settingTags, s3.NoSuchTagSet)(c) }
