package store

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"time"

	"ashlar"
	"ashlar/s3gw/store/row"
)

func fromNS(ns int64) time.Time { return time.Unix(0, ns).UTC() }

func rowAttributes(a *Attributes) *row.Attributes {
	return &row.Attributes{
		ContentType: a.ContentType, ContentEncoding: a.ContentEncoding,
		ContentDisposition: a.ContentDisposition, ContentLanguage: a.ContentLanguage,
		CacheControl: a.CacheControl, Expires: a.Expires, StorageClass: a.StorageClass,
		WebsiteRedirect: a.WebsiteRedirect, User: a.User, Tags: a.Tags,
	}
}

func attributes(m *row.Attributes) Attributes {
	return Attributes{
		ContentType: m.GetContentType(), ContentEncoding: m.GetContentEncoding(),
		ContentDisposition: m.GetContentDisposition(), ContentLanguage: m.GetContentLanguage(),
		CacheControl: m.GetCacheControl(), Expires: m.GetExpires(), StorageClass: m.GetStorageClass(),
		WebsiteRedirect: m.GetWebsiteRedirect(), User: m.GetUser(), Tags: m.GetTags(),
	}
}

func rowChecksum(c *Checksum) *row.Checksum {
	if c == nil {
		return nil
	}
	return &row.Checksum{Algorithm: c.Algorithm, Value: c.Value, Parts: uint32(c.Parts)}
}

func checksum(m *row.Checksum) *Checksum {
	if m == nil {
		return nil
	}
	return &Checksum{Algorithm: m.Algorithm, Value: m.Value, Parts: int(m.Parts)}
}

// etag prints the ETag of an object row without quotes.
func etag(md5 []byte, parts uint32) string {
	s := hex.EncodeToString(md5)
	if parts > 0 {
		s += "-" + strconv.FormatUint(uint64(parts), 10)
	}
	return s
}

// object turns a row and its extents into an Object. The extents are nil where
// nobody asks for them.
func object(bucket ashlar.BucketID, key string, m *row.Object, extents []ashlar.Extent) Object {
	o := Object{
		Bucket: bucket, Key: key, ETag: etag(m.EtagMd5, m.EtagParts), Bytes: m.Bytes,
		Modified: fromNS(m.ModifiedNs), Attributes: attributes(m.Attributes),
		Checksum: checksum(m.Checksum), Extents: extents, Owner: m.Owner,
	}
	if m.EtagParts > 0 {
		for _, x := range extents {
			o.PartBytes = append(o.PartBytes, x.Bytes)
		}
	}
	return o
}

// checkExtents asserts that the extents are those of the row: one a part, and
// together as long as the object.
func checkExtents(m *row.Object, extents []ashlar.Extent) error {
	var sum uint64
	for _, x := range extents {
		sum += x.Bytes
	}
	if sum != m.Bytes || (m.EtagParts > 0 && int(m.EtagParts) != len(extents)) {
		return ashlar.E("store: extents", "", ashlar.Corrupt,
			fmt.Errorf("%d extents of %d bytes for an object of %d parts and %d bytes", len(extents), sum, m.EtagParts, m.Bytes))
	}
	return nil
}

func upload(bucket, key string, id row.VersionID, m *row.Upload) Upload {
	return Upload{
		Bucket: bucket, Key: key, ID: id.String(), Owner: m.Owner, Started: fromNS(m.StartedNs),
		Attributes: attributes(m.Attributes), ChecksumAlgorithm: m.ChecksumAlgorithm, Composite: m.Composite,
	}
}

func part(number int, m *row.Part) Part {
	return Part{
		Number: number, ETag: etag(m.Md5, 0), Bytes: m.Bytes, Modified: fromNS(m.ModifiedNs),
		Checksum: checksum(m.Checksum),
	}
}
