package s3gw

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"maps"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"ashlar"
	"ashlar/s3gw/lifecycle"
	"ashlar/s3gw/notify"
	"ashlar/s3gw/s3"
	"ashlar/s3gw/store"
)

// memory is the double of the store: the seam's promises over maps, nothing
// more. It keeps bytes only after the body ended with io.EOF.
type memory struct {
	Locks   // tested over the real store: calling one here fails the test
	mu      sync.Mutex
	buckets map[string]*memBucket
	nextID  int
	now     func() time.Time
	// fail, if set, is returned by every call.
	fail error
	// failReadAt breaks the reader of OpenObject at that byte if it is positive.
	failReadAt int
	puts       int // bodies that ended well
	opens      int
}

type memBucket struct {
	store.Bucket
	life    *lifecycle.Config
	notes   *notify.Config
	objects map[string]*memObject
	uploads map[string]*memUpload

	settings map[string][]byte
	rev      uint64
}

type memObject struct {
	store.Object
	data []byte
}

type memUpload struct {
	store.Upload
	parts map[int]*memPart
}

type memPart struct {
	store.Part
	data []byte
}

func newMemory() *memory {
	return &memory{buckets: map[string]*memBucket{}, now: time.Now}
}

func (m *memory) bucket(name string) (*memBucket, error) {
	if m.fail != nil {
		return nil, m.fail
	}
	b := m.buckets[name]
	if b == nil {
		return nil, fmt.Errorf("memory: %w", store.ErrNoSuchBucket)
	}
	return b, nil
}

func (m *memory) CreateBucket(_ context.Context, owner, name, region string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	if b := m.buckets[name]; b != nil {
		if b.Owner == owner {
			return store.ErrBucketOwned
		}
		return store.ErrBucketExists
	}
	m.buckets[name] = &memBucket{
		Bucket:  store.Bucket{ID: ashlar.BucketID(ashlar.NewID()), Name: name, Owner: owner, Created: m.now(), Region: region, Shards: 4},
		objects: map[string]*memObject{}, uploads: map[string]*memUpload{},
	}
	return nil
}

func (m *memory) CreateBucketWith(ctx context.Context, owner, name, region string, opt store.BucketOptions) error {
	err := m.CreateBucket(ctx, owner, name, region)
	if err == nil && opt.Slots > 0 {
		m.buckets[name].Shards = uint8(opt.Slots)
	}
	if err == nil {
		m.buckets[name].settings = maps.Clone(opt.Settings)
	}
	return err
}

func (m *memory) Lifecycle(_ context.Context, name string) (*lifecycle.Config, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, err := m.bucket(name)
	if err != nil {
		return nil, err
	}
	return b.life, nil
}

func (m *memory) SetLifecycle(_ context.Context, name string, c *lifecycle.Config) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, err := m.bucket(name)
	if err == nil {
		b.life = c
	}
	return err
}

func (m *memory) Notification(_ context.Context, name string) (*notify.Config, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, err := m.bucket(name)
	if err != nil {
		return nil, err
	}
	return b.notes, nil
}

func (m *memory) SetNotification(_ context.Context, name string, c *notify.Config, _ bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, err := m.bucket(name)
	if err == nil {
		b.notes = c
	}
	return err
}

func (m *memory) Unlock(context.Context, *store.Object, []byte) error { return nil }

func (m *memory) PutPartWith(ctx context.Context, bucket, key, id string, number int, _ []byte, body store.Body) (store.Part, error) {
	return m.PutPart(ctx, bucket, key, id, number, body)
}

func (m *memory) SetEncryption(_ context.Context, name string, e *store.Encryption) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, err := m.bucket(name)
	if err == nil {
		b.Encryption = e
	}
	return err
}

func (m *memory) BucketReads(context.Context, string) (store.Reads, error) {
	return store.Reads{}, m.fail
}

func (m *memory) SetBucketReads(context.Context, string, store.Reads) error { return m.fail }

func (m *memory) HeadBucket(_ context.Context, name string) (store.Bucket, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, err := m.bucket(name)
	if err != nil {
		return store.Bucket{}, err
	}
	return b.Bucket, nil
}

func (m *memory) BucketUsage(_ context.Context, name string) (u store.Usage, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, err := m.bucket(name)
	if err != nil {
		return u, err
	}
	for _, o := range b.objects {
		u.Objects, u.Bytes = u.Objects+1, u.Bytes+int64(o.Bytes)
	}
	return u, nil
}

func (m *memory) DeleteBucket(_ context.Context, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, err := m.bucket(name)
	switch {
	case err != nil:
		return err
	case len(b.objects)+len(b.uploads) > 0:
		return store.ErrBucketNotEmpty
	}
	delete(m.buckets, name)
	return nil
}

func (m *memory) ListBuckets(_ context.Context, owner, prefix, after string, limit int) ([]store.Bucket, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return nil, false, m.fail
	}
	var list []store.Bucket
	for _, name := range slices.Sorted(maps.Keys(m.buckets)) {
		b := m.buckets[name]
		if b.Owner != owner || !strings.HasPrefix(name, prefix) || name <= after {
			continue
		}
		if len(list) == limit {
			return list, true, nil
		}
		list = append(list, b.Bucket)
	}
	return list, false, nil
}

// receive reads a body as the store must: to io.EOF or not at all.
func receive(body store.Body) ([]byte, string, *store.Checksum, error) {
	var buf bytes.Buffer
	if n := body.Bytes(); n > 0 {
		buf.Grow(int(n) + bytes.MinRead)
	}
	if _, err := buf.ReadFrom(body); err != nil {
		return nil, "", nil, fmt.Errorf("memory: receive: %w", err)
	}
	sum, checksum := body.Sums()
	return buf.Bytes(), hex.EncodeToString(sum[:]), checksum, nil
}

func (m *memory) judge(b *memBucket, key string, c store.Conditions) error {
	o := b.objects[key]
	if len(c.IfMatch) > 0 {
		if o == nil {
			return store.ErrNoSuchKey
		}
		if !s3.MatchETag(c.IfMatch, o.ETag) {
			return store.ErrPreconditionFailed
		}
	}
	if len(c.IfNoneMatch) > 0 && o != nil && s3.MatchETag(c.IfNoneMatch, o.ETag) {
		return store.ErrPreconditionFailed
	}
	return nil
}

func (m *memory) PutObject(_ context.Context, req *store.PutRequest, body store.Body) (store.Object, error) {
	m.mu.Lock()
	_, err := m.bucket(req.Bucket)
	m.mu.Unlock()
	if err != nil {
		return store.Object{}, err
	}
	data, etag, sum, err := receive(body)
	if err != nil {
		return store.Object{}, err
	}
	return m.commit(req, data, etag, sum, nil)
}

func (m *memory) commit(req *store.PutRequest, data []byte, etag string, sum *store.Checksum, parts []uint64) (store.Object, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, err := m.bucket(req.Bucket)
	if err != nil {
		return store.Object{}, err
	}
	if err := m.judge(b, req.Key, req.Conditions); err != nil {
		return store.Object{}, err
	}
	o := &memObject{data: data, Object: store.Object{
		Bucket: b.ID, Key: req.Key, ETag: etag, Bytes: uint64(len(data)), Modified: m.now(), Attributes: req.Attributes,
		Checksum: sum, PartBytes: parts, Owner: req.Owner, ACL: req.ACL,
	}}
	b.objects[req.Key] = o
	m.puts++
	return o.Object, nil
}

func (m *memory) object(bucket, key string) (*memObject, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, err := m.bucket(bucket)
	if err != nil {
		return nil, err
	}
	o := b.objects[key]
	if o == nil {
		return nil, store.ErrNoSuchKey
	}
	return o, nil
}

func (m *memory) HeadObject(_ context.Context, bucket, key, version string) (store.Object, error) {
	if version != "" && version != store.NullVersion {
		return store.Object{}, store.ErrNoSuchVersion
	}
	o, err := m.object(bucket, key)
	if err != nil {
		return store.Object{}, err
	}
	return o.Object, nil
}

func (m *memory) OpenObject(_ context.Context, obj *store.Object, off, length uint64) (io.ReadCloser, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, b := range m.buckets {
		if b.ID == obj.Bucket && b.objects[obj.Key] != nil {
			data := b.objects[obj.Key].data[off : off+length]
			if m.failReadAt > 0 {
				return io.NopCloser(io.MultiReader(bytes.NewReader(data[:m.failReadAt-1]), brokenReader{})), nil
			}
			if m.opens++; m.opens%2 == 0 { // with and without WriteTo in turn
				return struct {
					io.Reader
					io.Closer
				}{bytes.NewReader(data), io.NopCloser(nil)}, nil
			}
			return io.NopCloser(bytes.NewReader(data)), nil
		}
	}
	return nil, store.ErrNoSuchKey
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) {
	return 0, ashlar.E("memory: read", "", ashlar.Unavailable, nil)
}

func (m *memory) DeleteObject(_ context.Context, bucket, key, version, _ string, cond store.Conditions) (store.Deleted, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, err := m.bucket(bucket)
	if err != nil {
		return store.Deleted{}, err
	}
	if version != "" && version != store.NullVersion {
		return store.Deleted{}, nil
	}
	if err := m.judge(b, key, cond); err != nil {
		return store.Deleted{}, err
	}
	delete(b.objects, key)
	return store.Deleted{}, nil
}

// What follows is tested over the real store; see real_test.go.

func (m *memory) ListVersions(context.Context, store.VersionsRequest) (store.VersionsPage, error) {
	return store.VersionsPage{}, store.ErrNoSuchBucket
}

func (m *memory) SetVersioning(context.Context, string, store.Versioning) error {
	return store.ErrNoSuchBucket
}

func (m *memory) SetTags(context.Context, string, string, string, map[string]string) (string, error) {
	return "", store.ErrNoSuchKey
}

func (m *memory) Setting(_ context.Context, name, setting string) ([]byte, error) {
	a, err := m.Access(context.Background(), name)
	if err != nil {
		return nil, err
	}
	return a.Setting(setting), nil
}

func (m *memory) PutSetting(_ context.Context, name, setting string, value []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, err := m.bucket(name)
	if err != nil {
		return err
	}
	if b.settings == nil {
		b.settings = map[string][]byte{}
	}
	m.nextID++
	b.rev = uint64(m.nextID)
	if b.settings[setting] = value; value == nil {
		delete(b.settings, setting)
	}
	return nil
}

func (m *memory) ChangeSetting(ctx context.Context, name, setting string, fn func(store.Access) ([]byte, error)) error {
	a, err := m.Access(ctx, name)
	if err != nil {
		return err
	}
	value, err := fn(a)
	if err != nil {
		return err
	}
	return m.PutSetting(ctx, name, setting, value)
}

func (m *memory) Access(_ context.Context, name string) (store.Access, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, err := m.bucket(name)
	if err != nil {
		return store.Access{}, err
	}
	return store.NewAccess(b.Bucket, b.rev, maps.Clone(b.settings)), nil
}

func (m *memory) SetACL(_ context.Context, bucket, key, _ string, acl []byte) (string, error) {
	o, err := m.object(bucket, key)
	if err != nil {
		return "", err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	o.ACL = acl
	return "", nil
}

func (m *memory) CopyObject(_ context.Context, req *store.CopyRequest) (store.Object, error) {
	if v := req.Source.Version; v != "" && v != store.NullVersion {
		return store.Object{}, store.ErrNoSuchVersion
	}
	src, err := m.object(req.Source.Bucket, req.Source.Key)
	if err != nil {
		return store.Object{}, err
	}
	if err := s3.JudgeRead(&req.SourceConditions, src.ETag, src.Modified, true); err != nil {
		return store.Object{}, err
	}
	put := req.Put
	tags := put.Tags
	if !req.Replace {
		class := put.StorageClass
		put.Attributes = src.Attributes
		put.StorageClass = class
	}
	put.Tags = src.Tags
	if req.ReplaceTags {
		put.Tags = tags
	}
	sum := src.Checksum
	if req.ChecksumAlgorithm != "" {
		a := s3.AlgorithmOf(req.ChecksumAlgorithm)
		sum = &store.Checksum{Algorithm: a.Name, Value: digest(a.New(), src.data)}
	}
	return m.commit(&put, src.data, hex.EncodeToString(digest(md5.New(), src.data)), sum, nil)
}

func digest(h hash.Hash, data []byte) []byte {
	h.Write(data)
	return h.Sum(nil)
}

// rollUp is the grouping rule of both listings. It reports the prefix of key,
// and whether key is to be seen after the marker at all.
func rollUp(key, prefix, delimiter, after string) (group string, visible bool) {
	if !strings.HasPrefix(key, prefix) || key <= after {
		return "", false
	}
	if delimiter == "" {
		return "", true
	}
	if i := strings.Index(key[len(prefix):], delimiter); i >= 0 {
		group = key[:len(prefix)+i+len(delimiter)]
		return group, group > after
	}
	return "", true
}

func (m *memory) ListObjects(_ context.Context, req store.ListRequest) (p store.ListPage, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, err := m.bucket(req.Bucket)
	if err != nil {
		return p, err
	}
	for _, key := range slices.Sorted(maps.Keys(b.objects)) {
		group, visible := rollUp(key, req.Prefix, req.Delimiter, req.After)
		if !visible || group != "" && len(p.Prefixes) > 0 && p.Prefixes[len(p.Prefixes)-1] == group {
			continue
		}
		if len(p.Objects)+len(p.Prefixes) == req.Max {
			p.Truncated = true
			return p, nil
		}
		if group != "" {
			p.Prefixes, p.Last = append(p.Prefixes, group), group
			continue
		}
		p.Objects, p.Last = append(p.Objects, b.objects[key].Object), key
	}
	return p, nil
}

func (m *memory) CreateUpload(_ context.Context, u *store.Upload) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, err := m.bucket(u.Bucket)
	if err != nil {
		return "", err
	}
	m.nextID++
	id := fmt.Sprintf("%032x", m.nextID)
	kept := *u
	kept.ID, kept.Started = id, m.now()
	b.uploads[id] = &memUpload{Upload: kept, parts: map[int]*memPart{}}
	return id, nil
}

func (m *memory) uploadLocked(bucket, key, id string) (*memBucket, *memUpload, error) {
	b, err := m.bucket(bucket)
	if err != nil {
		return nil, nil, err
	}
	u := b.uploads[id]
	if u == nil || u.Key != key {
		return nil, nil, store.ErrNoSuchUpload
	}
	return b, u, nil
}

func (m *memory) PutPart(_ context.Context, bucket, key, id string, number int, body store.Body) (store.Part, error) {
	m.mu.Lock()
	_, _, err := m.uploadLocked(bucket, key, id)
	m.mu.Unlock()
	if err != nil {
		return store.Part{}, err
	}
	data, etag, sum, err := receive(body)
	if err != nil {
		return store.Part{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	_, u, err := m.uploadLocked(bucket, key, id)
	if err != nil {
		return store.Part{}, err
	}
	p := &memPart{data: data, Part: store.Part{Number: number, ETag: etag, Bytes: uint64(len(data)), Modified: m.now(), Checksum: sum}}
	u.parts[number] = p
	m.puts++
	return p.Part, nil
}

func (m *memory) ListParts(_ context.Context, bucket, key, id string, after, max int) (store.Upload, []store.Part, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, u, err := m.uploadLocked(bucket, key, id)
	if err != nil {
		return store.Upload{}, nil, false, err
	}
	var list []store.Part
	for _, n := range slices.Sorted(maps.Keys(u.parts)) {
		if n <= after {
			continue
		}
		if len(list) == max {
			return u.Upload, list, true, nil
		}
		list = append(list, u.parts[n].Part)
	}
	return u.Upload, list, false, nil
}

func (m *memory) ListUploads(_ context.Context, bucket, prefix, delimiter, keyAfter, idAfter string, max int) ([]store.Upload, []string, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, err := m.bucket(bucket)
	if err != nil {
		return nil, nil, false, err
	}
	all := make([]*memUpload, 0, len(b.uploads))
	for _, u := range b.uploads {
		all = append(all, u)
	}
	sort.Slice(all, func(i, j int) bool {
		return all[i].Key < all[j].Key || all[i].Key == all[j].Key && all[i].ID < all[j].ID
	})
	var list []store.Upload
	var prefixes []string
	for _, u := range all {
		group, visible := rollUp(u.Key, prefix, delimiter, keyAfter)
		if u.Key == keyAfter && idAfter != "" && u.ID > idAfter && strings.HasPrefix(u.Key, prefix) {
			visible = true
		}
		if !visible || group != "" && slices.Contains(prefixes, group) {
			continue
		}
		if len(list)+len(prefixes) == max {
			return list, prefixes, true, nil
		}
		if group != "" {
			prefixes = append(prefixes, group)
			continue
		}
		list = append(list, u.Upload)
	}
	return list, prefixes, false, nil
}

func (m *memory) CompleteUpload(_ context.Context, bucket, key, id string, parts []store.CompletePart, sum *store.Checksum, cond store.Conditions) (store.Object, error) {
	m.mu.Lock()
	_, u, err := m.uploadLocked(bucket, key, id)
	if err != nil {
		m.mu.Unlock()
		return store.Object{}, err
	}
	var data []byte
	var sizes []uint64
	h := md5.New()
	for i, want := range parts {
		p := u.parts[want.Number]
		if p == nil || p.ETag != want.ETag {
			m.mu.Unlock()
			return store.Object{}, store.ErrInvalidPart
		}
		if i < len(parts)-1 && len(p.data) < store.PartBytesMin {
			m.mu.Unlock()
			return store.Object{}, store.ErrEntityTooSmall
		}
		raw, _ := hex.DecodeString(p.ETag)
		h.Write(raw)
		data = append(data, p.data...)
		sizes = append(sizes, p.Bytes)
	}
	m.mu.Unlock()
	etag := fmt.Sprintf("%x-%d", h.Sum(nil), len(parts))
	o, err := m.commit(&store.PutRequest{Bucket: bucket, Key: key, Owner: u.Owner, Attributes: u.Attributes, Conditions: cond}, data, etag, sum, sizes)
	if err != nil {
		return o, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.buckets[bucket].uploads, id)
	return o, nil
}

func (m *memory) AbortUpload(_ context.Context, bucket, key, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, _, err := m.uploadLocked(bucket, key, id)
	if err == nil {
		delete(b.uploads, id)
	}
	return err
}
