package store

import (
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"ashlar"
	"ashlar/s3gw/store/row"
)

func fromNS(ns int64) time.Time { return time.Unix(0, ns).UTC() }

func rowAttributes(a *Attributes) *row.Attributes {
	return &row.Attributes{
		ContentType: []byte(a.ContentType), ContentEncoding: []byte(a.ContentEncoding),
		ContentDisposition: []byte(a.ContentDisposition), ContentLanguage: []byte(a.ContentLanguage),
		CacheControl: []byte(a.CacheControl), Expires: []byte(a.Expires), StorageClass: []byte(a.StorageClass),
		WebsiteRedirect: []byte(a.WebsiteRedirect), User: rowTags(a.User), Tags: rowTags(a.Tags),
	}
}

func attributes(m *row.Attributes) Attributes {
	return Attributes{
		ContentType: string(m.GetContentType()), ContentEncoding: string(m.GetContentEncoding()),
		ContentDisposition: string(m.GetContentDisposition()), ContentLanguage: string(m.GetContentLanguage()),
		CacheControl: string(m.GetCacheControl()), Expires: string(m.GetExpires()),
		StorageClass: string(m.GetStorageClass()), WebsiteRedirect: string(m.GetWebsiteRedirect()),
		User: tags(m.GetUser()), Tags: tags(m.GetTags()),
	}
}

func rowTags(m map[string]string) (list []*row.Tag) {
	for _, k := range slices.Sorted(maps.Keys(m)) {
		list = append(list, &row.Tag{Key: []byte(k), Value: []byte(m[k])})
	}
	return list
}

func tags(list []*row.Tag) map[string]string {
	if len(list) == 0 {
		return nil
	}
	m := make(map[string]string, len(list))
	for _, t := range list {
		m[string(t.Key)] = string(t.Value)
	}
	return m
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
		Checksum: checksum(m.Checksum), Extents: extents, Owner: m.Owner, Lock: lock(m.Lock),
		Encryption: encryption(m.Encryption), ACL: m.Acl,
	}
	if m.EtagParts > 0 {
		for _, x := range extents {
			o.PartBytes = append(o.PartBytes, contentBytes(m, x))
		}
	}
	return o
}

// partSums cuts the row's checksums of the parts. They are nil where the row has
// none, or not as many bytes as its parts would have.
func partSums(o *Object, all []byte) (sums [][]byte) {
	n := len(o.PartBytes)
	if n == 0 || len(all) == 0 || o.Checksum == nil || len(all) != n*len(o.Checksum.Value) {
		return nil
	}
	for size := len(all) / n; len(all) > 0; all = all[size:] {
		sums = append(sums, all[:size:size])
	}
	return sums
}

// checkExtents asserts that the extents are those of the row: one a part, and
// together as long as the object.
func checkExtents(m *row.Object, extents []ashlar.Extent) error {
	var sum uint64
	for _, x := range extents {
		sum += contentBytes(m, x)
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
		Lock: lock(m.Lock), Encryption: encryption(m.Encryption), ACL: m.Acl,
	}
}

func part(number int, m *row.Part) Part {
	return Part{
		Number: number, ETag: etag(m.Md5, 0), Bytes: m.Bytes, Modified: fromNS(m.ModifiedNs),
		Checksum: checksum(m.Checksum),
	}
}
