package row

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"ashlar"
)

var rewrite = flag.Bool("rewrite", false, "write testdata/golden.txt anew: only for a format that was never released")

func sampleID() (id ashlar.BucketID) {
	for i := range id {
		id[i] = byte(0xa0 + i)
	}
	return id
}

func sampleVersion() (v VersionID) {
	for i := range v {
		v[i] = byte(i)
	}
	return v
}

func sampleExtents() []ashlar.Extent {
	e := ashlar.Extent{
		Write: 0x1122334455667788, Part: 1, Bytes: 20 << 20, StripeBytes: 16 << 20, SmallMax: 128 << 10,
		Large: ashlar.Code{K: 8, M: 4}, Small: ashlar.Code{K: 1, M: 2},
	}
	f := e
	f.Write, f.Part, f.Bytes, f.Large = 7, 2, 5, ashlar.Code{K: 4, M: 2}
	return []ashlar.Extent{e, f}
}

// golden builds one of every key and value.
func golden(t *testing.T) string {
	var out strings.Builder
	s := Slot{Bucket: sampleID(), Slot: 3}
	v := sampleVersion()
	key := func(name string, k []byte) { fmt.Fprintf(&out, "key   %-11s %x\n", name, k) }
	key("bucket", BucketKey("photos"))
	key("open", s.Header(KindOpen))
	key("closed", s.Header(KindClosed))
	key("counter", s.Counter(CountObjects))
	key("object", s.Object("a/b"))
	key("old object", s.OldObject("a/b", v))
	key("manifest", s.Manifest(v[:]))
	key("upload", s.Upload("a/b", v))
	key("part", s.Part(v, 10000))
	key("done", s.Done(v))
	key("mark", s.Mark(MarkEnabled))
	value := func(name string, m Message) {
		b, err := Encode(m)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "value %-11s %x\n", name, b)
	}
	id := sampleID()
	tag := func(k, v string) []*Tag { return []*Tag{{Key: []byte(k), Value: []byte(v)}} }
	attrs := &Attributes{
		ContentType: []byte("ct"), ContentEncoding: []byte("ce"), ContentDisposition: []byte("cd"), ContentLanguage: []byte("cl"),
		CacheControl: []byte("cc"), Expires: []byte("e"), StorageClass: []byte("sc"), WebsiteRedirect: []byte("wr"),
		User: append(tag("a", "1"), tag("b", "\xff")...), Tags: tag("t", "v"),
	}
	sum := &Checksum{Algorithm: "CRC32", Value: []byte{1, 2, 3, 4}, Parts: 2}
	md5 := bytes.Repeat([]byte{0xcd}, 16)
	object := &Object{
		Format: 1, Version: v[:], NullVersion: true, Bytes: 20<<20 + 5, ModifiedNs: 1e18, EtagMd5: md5, EtagParts: 2,
		Checksum: sum, Attributes: attrs, Owner: "me", Extents: FromExtents(sampleExtents()),
	}
	value("bucket", &Bucket{
		Format: 1, Id: id[:], Owner: "me", CreatedNs: 1e18, Region: "r", Slots: []uint32{0, 1, 2, 300},
		State: Bucket_DELETING, Generation: 2,
	})
	value("marker", &Marker{Format: 1, Generation: 2})
	value("object", object)
	value("manifest", &Manifest{Format: 1, Extents: FromExtents(sampleExtents()[:1])})
	value("upload", &Upload{Format: 1, StartedNs: 1e18, Owner: "me", Attributes: attrs, ChecksumAlgorithm: "SHA1", Composite: true})
	value("part", &Part{Format: 1, Key: []byte("a/b"), Bytes: 5, ModifiedNs: 1e18, Md5: md5, Checksum: sum, Extents: FromExtents(sampleExtents()[1:])})
	value("done", &Done{Format: 1, Key: []byte("a/b"), EndedNs: 1e18, Object: &Object{Bytes: 5, EtagMd5: md5, EtagParts: 1}})
	value("mark", &Mark{Format: 1})
	value("settings", &Bucket{
		Format: 1, Id: id[:], Owner: "me", Slots: []uint32{0}, Versioning: Bucket_SUSPENDED, Settings: []*Setting{{Name: "cors", Value: []byte("x")}},
	})
	value("deleted", &Object{Format: 1, Version: v[:], DeleteMarker: true, ModifiedNs: 1e18, Owner: "me", NullAt: v[:]})
	sums := FromExtents(sampleExtents())
	sums.PartSums = []byte{1, 2, 3, 4, 5, 6, 7, 8}
	value("part sums", &Manifest{Format: 1, Extents: sums})
	value("locked", &Object{
		Format: 1, Version: v[:], ModifiedNs: 1e18, EtagMd5: md5, Lock: &Lock{Mode: Lock_COMPLIANCE, UntilNs: 2e18, Hold: Lock_OFF},
	})
	value("default", &Bucket{
		Format: 1, Id: id[:], Owner: "me", Slots: []uint32{0}, Versioning: Bucket_LOCKED, DefaultLock: &DefaultLock{Mode: Lock_GOVERNANCE, Years: 7},
	})
	value("lock later", &Upload{Format: 1, StartedNs: 1e18, Lock: &Lock{Hold: Lock_ON}})
	salted := FromExtents(sampleExtents())
	salted.Salts = bytes.Repeat([]byte{9}, 32)
	value("encrypted", &Object{
		Format: 1, Version: v[:], ModifiedNs: 1e18, EtagMd5: md5, Extents: salted,
		Encryption: &Encryption{Mode: Encryption_SSE_KMS, KeyId: "k", Sealed: []byte{1, 2, 3}},
	})
	value("encrypt", &Bucket{Format: 1, Id: id[:], Slots: []uint32{0}, DefaultEncryption: &Encryption{Mode: Encryption_SSE_S3}})
	value("encrypting", &Upload{Format: 1, StartedNs: 1e18, Encryption: &Encryption{Mode: Encryption_SSE_C, Sealed: []byte{1}}})
	key("lock mark", s.Mark(MarkLocked))
	key("agenda", s.Agenda(1e18, AgendaKey, "a/b"))
	key("upload due", s.Agenda(1e18, AgendaUpload, UploadSubject("a/b", v)))
	key("build", s.Agenda(1e18, AgendaBuild, ""))
	key("lease", LeaseKey("lifecycle"))
	key("rules", s.Mark(MarkRules))
	rules := &Lifecycle{Rules: []*LifecycleRule{
		{Id: "r", Enabled: true, Prefix: "p", Tags: tag("t", "v"), HasGreater: true, HasLess: true, LessBytes: 9, Days: 1, NoncurrentDays: 2, NoncurrentKeep: 3, Form: LifecycleRule_AND},
		{Id: "s", Prefix: "q", DateNs: 1e18, LoneMarkers: true, AbortDays: 4, Form: LifecycleRule_PREFIX},
	}}
	value("rules", &LifecycleMark{Format: 1, Lifecycle: rules, Bucket: "photos", Owner: "me"})
	value("agenda", &Agenda{Format: 1, After: []byte("a")})
	value("lease", &Lease{Format: 1, Holder: v[:], UntilNs: 1e18})
	value("due", &Object{Format: 1, Version: v[:], ModifiedNs: 1e18, EtagMd5: md5, DueNs: 2e18})
	value("upload due", &Upload{Format: 1, StartedNs: 1e18, DueNs: 2e18})
	value("acl", &Object{Format: 1, Version: v[:], ModifiedNs: 1e18, EtagMd5: md5, Acl: []byte("READ all\n")})
	value("upload acl", &Upload{Format: 1, StartedNs: 1e18, Acl: []byte("READ all\n")})
	key("event", s.Event("lake", "a/b", v))
	key("queued", Queued("lake", CountEvents))
	value("event", &Event{Format: 1, Name: "s3:ObjectCreated:Put", AtNs: 1e18, Rule: "r", Bucket: "photos", Owner: "me", Version: "v", Etag: "e", Bytes: 5,
		Principal: "p", Source: "127.0.0.1", Request: "q", Host: "h"})
	value("notify", &Bucket{Format: 1, Id: id[:], Slots: []uint32{0}, Notification: &Notification{Rules: []*NotificationRule{
		{Id: "r", Kind: NotificationRule_FUNCTION, Arn: "arn", Events: []string{"s3:ObjectCreated:*"}, Prefix: "a", Suffix: "b"}}}})
	fmt.Fprintf(&out, "slot of a/b: %d of 4, %d of 64; slots on 5 shards: %v\n",
		SlotOf(id, "a/b", 4), SlotOf(id, "a/b", 64), SpreadSlots(id, 4, 5))
	return out.String()
}

// The bytes of format 1 are these, for ever.
func TestGolden(t *testing.T) {
	const file = "testdata/golden.txt"
	got := golden(t)
	if *rewrite {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Fatalf("the format changed:\n%s\nwant:\n%s", got, want)
	}
}

func TestUnknownFormatsAreRefused(t *testing.T) {
	for _, m := range []Message{&Bucket{}, &Marker{}, &Object{}, &Manifest{}, &Upload{}, &Part{}, &Done{}, &Mark{}, &LifecycleMark{}, &Agenda{}, &Lease{}, &Event{}} {
		if _, err := Encode(m); err == nil {
			t.Errorf("%T without a format was encoded", m)
		}
		if err := Decode(nil, nil, m); !ashlar.Is(err, ashlar.Invalid) {
			t.Errorf("%T without a format: %v", m, err)
		}
		if err := Decode(nil, []byte{0x08, 2}, m); !ashlar.Is(err, ashlar.Invalid) {
			t.Errorf("%T of format 2: %v", m, err)
		}
		if err := Decode(nil, []byte{0xff}, m); !ashlar.Is(err, ashlar.Corrupt) {
			t.Errorf("%T of noise: %v", m, err)
		}
		if err := Decode(nil, []byte{0x08, 1}, m); err != nil {
			t.Errorf("%T of format 1: %v", m, err)
		}
	}
}

func TestExtentsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		code := rapid.Custom(func(t *rapid.T) ashlar.Code {
			return ashlar.Code{K: rapid.Uint8Range(0, 32).Draw(t, "k"), M: rapid.Uint8Range(0, 32).Draw(t, "m")}
		})
		list := rapid.SliceOf(rapid.Custom(func(t *rapid.T) ashlar.Extent {
			return ashlar.Extent{
				Write: ashlar.WriteID(rapid.Uint64().Draw(t, "write")), Part: rapid.Uint32().Draw(t, "part"),
				Bytes:       rapid.Uint64().Draw(t, "bytes"),
				StripeBytes: rapid.SampledFrom([]uint32{0, 1 << 20, 16 << 20}).Draw(t, "stripe"),
				SmallMax:    rapid.SampledFrom([]uint32{0, 1 << 17}).Draw(t, "small"),
				Large:       code.Draw(t, "large"), Small: code.Draw(t, "small code"),
			}
		})).Draw(t, "extents")
		b, err := proto.Marshal(&Manifest{Format: 1, Extents: FromExtents(list)})
		if err != nil {
			t.Fatal(err)
		}
		var m Manifest
		if err := Decode(nil, b, &m); err != nil {
			t.Fatal(err)
		}
		got, err := m.Extents.List()
		if err != nil || !slices.Equal(got, list) {
			t.Fatalf("got %v, %v\nwant %v", got, err, list)
		}
	})
}

func TestBrokenExtents(t *testing.T) {
	for name, x := range map[string]*Extents{
		"short column":   {Write: []uint64{1}, Part: []uint32{1}},
		"layout missing": {Write: []uint64{1}, Part: []uint32{1}, Bytes: []uint64{1}},
		"layout beyond":  {Write: []uint64{1}, Part: []uint32{1}, Bytes: []uint64{1}, Layout: []uint32{1}, Layouts: []*Layout{{}}},
		"code":           {Write: []uint64{1}, Part: []uint32{1}, Bytes: []uint64{1}, Layouts: []*Layout{{LargeK: 33}}},
	} {
		if _, err := x.List(); !ashlar.Is(err, ashlar.Corrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Row keys keep the order of object keys, versions come newest first, and
// nothing of one key lies among another's.
func TestKeyOrder(t *testing.T) {
	s := Slot{Bucket: sampleID(), Slot: 1}
	name := rapid.StringOfN(rapid.RuneFrom([]rune{1, ' ', '/', 'a', 'b', 'ä', 0x10ffff}), 1, 6, -1)
	rapid.Check(t, func(t *rapid.T) {
		a, b := name.Draw(t, "a"), name.Draw(t, "b")
		older := NewVersionID(time.Unix(0, rapid.Int64Range(0, 1<<62).Draw(t, "older")))
		newer := NewVersionID(time.Unix(0, rapid.Int64Range(0, 1<<62).Draw(t, "newer")))
		if bytes.Compare(older[:], newer[:]) > 0 {
			older, newer = newer, older
		}
		if a > b {
			a, b = b, a
		}
		want := [][]byte{s.Object(a), s.OldObject(a, newer), s.OldObject(a, older)}
		if a != b {
			want = append(want, s.Object(b), s.OldObject(b, newer))
		}
		if !slices.IsSortedFunc(want, bytes.Compare) {
			t.Fatalf("%q, %q: not in order: %x", a, b, want)
		}
		key, suffix, ok := UserKey(want[1])
		if !ok || key != a || len(suffix) != 17 || suffix[0] != 1 {
			t.Fatalf("user key %q, suffix %x", key, suffix)
		}
		if end := Successor(s.Header(KindObject)); bytes.Compare(want[len(want)-1], end) >= 0 {
			t.Fatal("beyond the slot")
		}
	})
}

func TestEventKeys(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		at := QueueEntry{Target: rapid.StringMatching(`[a-z0-9-]{1,64}`).Draw(t, "target"), Key: rapid.StringMatching(`[^\x00]{0,40}`).Draw(t, "key")}
		at.Slot.Slot = rapid.Uint8().Draw(t, "slot")
		copy(at.Bucket[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "bucket"))
		copy(at.ID[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id"))
		k := at.Event(at.Target, at.Key, at.ID)
		if got, ok := ParseEvent(k); !ok || got != at {
			t.Fatalf("%x is %+v, want %+v", k, got, at)
		}
		if !bytes.HasPrefix(k, Queue(at.Target)) {
			t.Fatalf("%x is not in the queue of %q", k, at.Target)
		}
	})
	for _, k := range []string{"", "q", "qlake", "q\x00", "qlake\x00short", "x" + strings.Repeat("a", 60)} {
		if _, ok := ParseEvent([]byte(k)); ok {
			t.Errorf("%q is the key of an event", k)
		}
	}
}

func TestSuccessor(t *testing.T) {
	for in, want := range map[string]string{"a": "b", "a\xff": "b", "a\xff\xff": "b", "\xff": "", "": "", "ab": "ac"} {
		if got := Successor([]byte(in)); string(got) != want {
			t.Errorf("%x: %x, want %x", in, got, want)
		}
	}
}

func TestVersionIDText(t *testing.T) {
	v := sampleVersion()
	got, ok := ParseVersionID(v.String())
	if !ok || got != v {
		t.Fatalf("%s: %v", v, got)
	}
	for _, bad := range []string{"", "00", strings.Repeat("g", 32), hex.EncodeToString(v[:]) + "00"} {
		if _, ok := ParseVersionID(bad); ok {
			t.Errorf("%q was read", bad)
		}
	}
}

// Keys spread evenly, or slots would not be asked for their fair share.
func TestSlotsAreEven(t *testing.T) {
	const keys, slots = 40_000, 4
	var count [slots]int
	for i := range keys {
		count[SlotOf(sampleID(), fmt.Sprintf("dir/file-%08d", i), slots)]++
	}
	for _, n := range count {
		if n < keys/slots*9/10 || n > keys/slots*11/10 {
			t.Fatalf("uneven: %v", count)
		}
	}
	for _, shards := range []int{1, 3, 4, 64} {
		spread := SpreadSlots(sampleID(), 4, shards)
		distinct := map[uint32]bool{}
		for _, s := range spread {
			distinct[s] = true
			if int(s) >= shards {
				t.Fatalf("%d shards: %v", shards, spread)
			}
		}
		if len(distinct) != min(4, shards) {
			t.Fatalf("%d shards: %v", shards, spread)
		}
	}
}

func FuzzDecode(f *testing.F) {
	b, _ := proto.Marshal(&Object{Format: 1, Extents: FromExtents(sampleExtents())})
	f.Add(b)
	f.Add([]byte{8, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, m := range []Message{&Bucket{}, &Marker{}, &Object{}, &Manifest{}, &Upload{}, &Part{}, &Done{}, &Mark{}} {
			if Decode(nil, data, m) != nil {
				continue
			}
			if o, ok := m.(*Object); ok {
				if list, err := o.Extents.List(); err == nil {
					again, err := FromExtents(list).List()
					if err != nil || !reflect.DeepEqual(list, again) {
						t.Fatalf("%v became %v, %v", list, again, err)
					}
				}
			}
		}
	})
}
