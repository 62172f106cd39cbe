package store

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"pgregory.net/rapid"

	"ashlar/daemon/meta/trash"
	"ashlar/s3gw/store/row"
)

// versionModel is what a bucket should hold: under each key its versions, the
// newest first.
type versionModel struct {
	state Versioning
	keys  map[string][]modelVersion
}

type modelVersion struct {
	id, content string
	marker      bool
	tags        string
}

// add puts a version on top by S3's rules: without versioning enabled it is the
// null version and replaces the one that is there.
func (m *versionModel) add(key string, v modelVersion) {
	if v.id == NullVersion {
		m.keys[key] = slices.DeleteFunc(m.keys[key], func(o modelVersion) bool { return o.id == NullVersion })
	}
	m.keys[key] = append([]modelVersion{v}, m.keys[key]...)
}

func (m *versionModel) remove(key, id string) {
	m.keys[key] = slices.DeleteFunc(m.keys[key], func(o modelVersion) bool { return o.id == id })
}

// lines prints the whole bucket in the order of ListVersions.
func (m *versionModel) lines() (all, live []string) {
	var keys []string
	for k, list := range m.keys {
		if len(list) > 0 {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	for _, k := range keys {
		for i, v := range m.keys[k] {
			all = append(all, fmt.Sprintf("%s %s %t %t %d", k, v.id, v.marker, i == 0, len(v.content)))
		}
		if !m.keys[k][0].marker {
			live = append(live, k)
		}
	}
	return all, live
}

var versionKeys = []string{"a", "a/b", "a/c", "b/x/1", "b/x/2", "c"}

// TestVersionsAgainstModel runs random writes through two gateways, one of which
// remembers an old state of the bucket, and compares everything with the model.
func TestVersionsAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := bareRig(t.Context())
		want(t, r.CreateBucket(r.ctx, "me", "b", ""), nil)
		second := r.again()
		m := &versionModel{keys: map[string][]modelVersion{}}
		for range rapid.IntRange(1, 25).Draw(t, "steps") {
			s := r.Store
			if rapid.Bool().Draw(t, "second") {
				s = second
			}
			m.step(t, r, s)
			m.compare(t, r, s)
		}
		m.empty(t, r)
		r.Close()
		second.Close()
	})
}

func (m *versionModel) step(t *rapid.T, r *rig, s *Store) {
	key := rapid.SampledFrom(versionKeys).Draw(t, "key")
	switch rapid.SampledFrom([]string{"put", "put", "put", "delete", "delete version", "state", "tags"}).Draw(t, "op") {
	case "put":
		content := strings.Repeat("x", rapid.IntRange(0, 9).Draw(t, "size"))
		o, err := s.PutObject(r.ctx, &PutRequest{Bucket: "b", Key: key, Owner: "me"}, body([]byte(content)))
		want(t, err, nil)
		if (o.Version != "") != (m.state == VersioningEnabled) {
			t.Fatalf("put in state %q returns version %q", m.state, o.Version)
		}
		if o.Version == "" {
			o.Version = NullVersion
		}
		m.add(key, modelVersion{id: o.Version, content: content})
	case "delete":
		m.delete(t, r, s, key)
	case "delete version":
		id := m.pick(t, key)
		_, err := s.DeleteObject(r.ctx, "b", key, id, "me", Conditions{})
		want(t, err, nil)
		m.remove(key, id)
	case "state":
		m.state = rapid.SampledFrom([]Versioning{VersioningEnabled, VersioningSuspended}).Draw(t, "state")
		want(t, s.SetVersioning(r.ctx, "b", m.state), nil)
	case "tags":
		id := m.pick(t, key)
		_, err := s.SetTags(r.ctx, "b", key, id, map[string]string{"k": id})
		i := slices.IndexFunc(m.keys[key], func(v modelVersion) bool { return v.id == id })
		switch {
		case i < 0:
			want(t, err, ErrNoSuchVersion)
		case m.keys[key][i].marker:
			want(t, err, ErrDeleteMarker)
		default:
			want(t, err, nil)
			m.keys[key][i].tags = id
		}
	}
}

func (m *versionModel) delete(t *rapid.T, r *rig, s *Store, key string) {
	d, err := s.DeleteObject(r.ctx, "b", key, "", "me", Conditions{})
	want(t, err, nil)
	if m.state == "" {
		m.remove(key, NullVersion)
		if d != (Deleted{}) {
			t.Fatalf("delete without versions says %+v", d)
		}
		return
	}
	if !d.Marker || (d.Version == NullVersion) != (m.state == VersioningSuspended) {
		t.Fatalf("delete in state %s says %+v", m.state, d)
	}
	m.add(key, modelVersion{id: d.Version, marker: true})
}

// pick draws a version of the key, or one that is not there.
func (m *versionModel) pick(t *rapid.T, key string) string {
	ids := []string{NullVersion, strings.Repeat("0", 32)}
	for _, v := range m.keys[key] {
		ids = append(ids, v.id)
	}
	return rapid.SampledFrom(ids).Draw(t, "version")
}

// compare reads everything back, in pages of random size.
func (m *versionModel) compare(t *rapid.T, r *rig, s *Store) {
	all, live := m.lines()
	var got []string
	req := VersionsRequest{Bucket: "b", Max: rapid.IntRange(1, 5).Draw(t, "page")}
	for {
		p, err := s.ListVersions(r.ctx, req)
		want(t, err, nil)
		for _, o := range p.Objects {
			got = append(got, fmt.Sprintf("%s %s %t %t %d", o.Key, o.Version, o.DeleteMarker, o.Latest, o.Bytes))
		}
		if !p.Truncated {
			break
		}
		req.KeyAfter, req.VersionAfter = p.LastKey, p.LastVersion
	}
	if !slices.Equal(got, all) {
		t.Fatalf("versions:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(all, "\n"))
	}
	prefixes := map[string]bool{}
	for _, k := range live {
		if dir, _, ok := strings.Cut(k, "/"); ok {
			prefixes[dir+"/"] = true
		}
	}
	page, err := s.ListObjects(r.ctx, ListRequest{Bucket: "b", Delimiter: "/", Max: 100})
	want(t, err, nil)
	if len(page.Prefixes) != len(prefixes) || len(page.Objects)+len(prefixes) > len(live) && len(live) > 0 {
		t.Fatalf("prefixes %v and %d objects, want %v of %v", page.Prefixes, len(page.Objects), prefixes, live)
	}
	for key, list := range m.keys {
		for i, v := range list {
			m.compareOne(t, r, s, key, i, v)
		}
	}
	m.compareUsage(t, r, s)
}

func (m *versionModel) compareOne(t *rapid.T, r *rig, s *Store, key string, at int, v modelVersion) {
	asked := []string{v.id}
	if at == 0 {
		asked = append(asked, "")
	}
	for _, id := range asked {
		o, err := s.HeadObject(r.ctx, "b", key, id)
		var marker *MarkerError
		if v.marker {
			if !errors.As(err, &marker) || marker.Version != v.id || marker.Named != (id != "") {
				t.Fatalf("head of marker %s %q: %v", key, id, err)
			}
			continue
		}
		want(t, err, nil)
		if o.Tags["k"] != v.tags || r.content(t, &o, 0, o.Bytes) != v.content {
			t.Fatalf("%s %q is not what was written", key, id)
		}
	}
}

func (m *versionModel) compareUsage(t *rapid.T, r *rig, s *Store) {
	var u Usage
	for _, list := range m.keys {
		for i, v := range list {
			if i == 0 && !v.marker {
				u.Objects++
				u.Bytes += int64(len(v.content))
			} else {
				u.Others++
				u.OtherBytes += int64(len(v.content))
			}
		}
	}
	got, err := s.BucketUsage(r.ctx, "b")
	want(t, err, nil)
	if got != u {
		t.Fatalf("usage %+v, want %+v", got, u)
	}
	r.audit(t)
}

// empty deletes every version; only then the bucket can go.
func (m *versionModel) empty(t *rapid.T, r *rig) {
	if all, _ := m.lines(); len(all) > 0 {
		want(t, r.DeleteBucket(r.ctx, "b"), ErrBucketNotEmpty)
	}
	for key, list := range m.keys {
		for _, v := range list {
			_, err := r.DeleteObject(r.ctx, "b", key, v.id, "me", Conditions{})
			want(t, err, nil)
		}
	}
	want(t, r.DeleteBucket(r.ctx, "b"), nil)
	for kind, n := range r.census(t) {
		if kind != trash.Kind {
			t.Fatalf("%d rows of kind %c outlive their bucket", n, kind)
		}
	}
}

// A gateway that has not heard of it yet follows a change of versioning at once.
func TestVersioningIsHeededAtOnce(t *testing.T) {
	r := newRig(t)
	second := r.again()
	r.put(t, "b", "k", "null version")
	_, err := second.HeadObject(r.ctx, "b", "k", "") // fills the cache
	want(t, err, nil)
	want(t, r.SetVersioning(r.ctx, "b", VersioningEnabled), nil)
	o, err := second.PutObject(r.ctx, &PutRequest{Bucket: "b", Key: "k", Owner: "me"}, body([]byte("x")))
	want(t, err, nil)
	if o.Version == "" {
		t.Fatal("a PUT through the other gateway replaced the null version")
	}
	d, err := second.DeleteObject(r.ctx, "b", "k", "", "me", Conditions{IfMatch: []string{o.ETag}})
	want(t, err, nil)
	if !d.Marker {
		t.Fatal("a DELETE left no marker")
	}
	// A delete marker on top counts as absent.
	_, err = second.DeleteObject(r.ctx, "b", "k", "", "me", Conditions{IfMatch: []string{"*"}})
	want(t, err, ErrNoSuchKey)
	_, err = r.PutObject(r.ctx, &PutRequest{Bucket: "b", Key: "k", Conditions: Conditions{IfMatch: []string{o.ETag}}}, body(nil))
	want(t, err, ErrNoSuchKey)
	_, err = r.PutObject(r.ctx, &PutRequest{Bucket: "b", Key: "k", Conditions: Conditions{IfNoneMatch: []string{"*"}}}, body(nil))
	want(t, err, nil)
	if got := r.read(t, "b", "k"); got != "" {
		t.Fatalf("current is %q", got)
	}
}

// Versions that are deleted all at once are all gone: one that becomes current
// meanwhile must not be taken for one that is not there.
func TestVersionsDeletedTogether(t *testing.T) {
	r := newRig(t)
	want(t, r.SetVersioning(r.ctx, "b", VersioningEnabled), nil)
	for range 40 {
		var ids []string
		for range 6 {
			ids = append(ids, r.put(t, "b", "k", "x").Version)
		}
		d, err := r.DeleteObject(r.ctx, "b", "k", "", "me", Conditions{})
		want(t, err, nil)
		var group errgroup.Group
		for _, id := range append(ids, d.Version) {
			group.Go(func() error {
				_, err := r.DeleteObject(r.ctx, "b", "k", id, "me", Conditions{})
				return err
			})
		}
		want(t, group.Wait(), nil)
		p, err := r.ListVersions(r.ctx, VersionsRequest{Bucket: "b", Max: 10})
		want(t, err, nil)
		if len(p.Objects) > 0 {
			t.Fatalf("%d versions are left", len(p.Objects))
		}
	}
	r.audit(t)
}

// A version that becomes current between the two reads of its deletion.
func TestVersionMovesWhileItIsDeleted(t *testing.T) {
	r := newRig(t)
	want(t, r.SetVersioning(r.ctx, "b", VersioningEnabled), nil)
	old, cover := r.put(t, "b", "k", "old"), r.put(t, "b", "k", "cover")
	b, err := r.lookup(r.ctx, "b")
	want(t, err, nil)
	id, _ := row.ParseVersionID(old.Version)
	at := b.slotOf("k").OldObject("k", id)
	fired := false
	r.meta.onGet(func(key []byte) {
		if fired || string(key) != string(at) {
			return
		}
		fired = true
		_, err := r.again().DeleteObject(r.ctx, "b", "k", cover.Version, "me", Conditions{})
		want(t, err, nil)
	})
	_, err = r.DeleteObject(r.ctx, "b", "k", old.Version, "me", Conditions{})
	want(t, err, nil)
	if left := r.census(t); !fired || left[row.KindObject] != 0 {
		t.Fatalf("fired %t, %d versions left", fired, left[row.KindObject])
	}
	r.audit(t)
}

// A clock that goes back does not change the order of versions.
func TestVersionsKeepTheirOrder(t *testing.T) {
	r := newRig(t)
	want(t, r.SetVersioning(r.ctx, "b", VersioningEnabled), nil)
	first := r.put(t, "b", "k", "first")
	r.clock.advance(-1e12)
	second := r.put(t, "b", "k", "second")
	p, err := r.ListVersions(r.ctx, VersionsRequest{Bucket: "b", Max: 10})
	want(t, err, nil)
	if len(p.Objects) != 2 || p.Objects[0].Version != second.Version || p.Objects[1].Version != first.Version {
		t.Fatalf("%+v", p.Objects)
	}
	_, err = r.DeleteObject(r.ctx, "b", "k", second.Version, "me", Conditions{})
	want(t, err, nil)
	if got := r.read(t, "b", "k"); got != "first" {
		t.Fatalf("current is %q", got)
	}
}

// A copy onto itself makes a version with content of its own.
func TestCopyOntoItselfKeepsTheOldVersion(t *testing.T) {
	r := newRig(t)
	want(t, r.SetVersioning(r.ctx, "b", VersioningEnabled), nil)
	old := r.put(t, "b", "k", "content")
	req := &CopyRequest{Replace: true, Put: PutRequest{Bucket: "b", Key: "k", Owner: "me"}}
	req.Source.Bucket, req.Source.Key = "b", "k"
	o, err := r.CopyObject(r.ctx, req)
	want(t, err, nil)
	if o.Version == old.Version || o.Version == "" {
		t.Fatalf("version %q", o.Version)
	}
	_, err = r.DeleteObject(r.ctx, "b", "k", old.Version, "me", Conditions{})
	want(t, err, nil)
	if got := r.read(t, "b", "k"); got != "content" || len(r.stripes.writes()) != 2 {
		t.Fatalf("%q, %d extents", got, len(r.stripes.writes()))
	}
}

// Settings are stored, replaced and removed, and survive a change of state.
func TestSettings(t *testing.T) {
	r := newRig(t)
	want(t, r.PutSetting(r.ctx, "b", "x", []byte("1")), nil)
	want(t, r.PutSetting(r.ctx, "b", "a", []byte("2")), nil)
	want(t, r.PutSetting(r.ctx, "b", "x", []byte("3")), nil)
	want(t, r.SetVersioning(r.ctx, "b", VersioningEnabled), nil)
	// A deletion that is taken back goes through every state of the record.
	r.before(t, row.KindBucket, func(second *rig) { second.put(t, "b", "k", "") })
	want(t, r.DeleteBucket(r.ctx, "b"), ErrBucketNotEmpty)
	b, err := r.HeadBucket(r.ctx, "b")
	want(t, err, nil)
	if b.Versioning != VersioningEnabled {
		t.Errorf("versioning is %q after the deletion was taken back", b.Versioning)
	}
	for name, content := range map[string]string{"x": "3", "a": "2", "other": ""} {
		got, err := r.again().Setting(r.ctx, "b", name)
		want(t, err, nil)
		if string(got) != content || (got == nil) != (content == "") {
			t.Errorf("%s: %q", name, got)
		}
	}
	want(t, r.PutSetting(r.ctx, "b", "x", nil), nil)
	if got, _ := r.Setting(r.ctx, "b", "x"); got != nil {
		t.Errorf("x is still %q", got)
	}
	want(t, r.PutSetting(r.ctx, "nope", "x", nil), ErrNoSuchBucket)
	if err := r.PutSetting(r.ctx, "b", "x", make([]byte, settingBytesMax+1)); err == nil {
		t.Error("a setting of any size is taken")
	}
}

// A deletion by size or time is judged at the commit, against what is there: an
// object, a delete marker, a version, or nothing.
func TestDeleteBySizeAndTime(t *testing.T) {
	r := newRig(t)
	size := func(n uint64) Conditions { return Conditions{IfBytes: &n} }
	at := func(m time.Time) Conditions { return Conditions{IfModifiedAt: &m} }
	del := func(version string, c Conditions) error {
		_, err := r.DeleteObject(r.ctx, "b", "k", version, "me", c)
		return err
	}
	long := time.Date(2015, 1, 1, 0, 0, 0, 0, time.UTC)
	want(t, del("", size(9)), nil) // nothing is there
	o := r.put(t, "b", "k", "four")
	want(t, del("", size(9)), ErrPreconditionFailed)
	want(t, del("", at(long)), ErrPreconditionFailed)
	want(t, del("", at(o.Modified.Truncate(time.Second))), nil)
	r.put(t, "b", "k", "four")
	want(t, del("", size(4)), nil)
	want(t, r.SetVersioning(r.ctx, "b", VersioningEnabled), nil)
	o = r.put(t, "b", "k", "four")
	want(t, del(o.Version, size(9)), ErrPreconditionFailed)
	want(t, del("", size(4)), nil)
	want(t, del("", size(4)), ErrPreconditionFailed) // a delete marker has no bytes
	want(t, del("", at(long)), ErrPreconditionFailed)
	want(t, del(o.Version, size(4)), nil)
	want(t, del(o.Version, size(9)), nil)
}
