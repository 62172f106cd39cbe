package store

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"ashlar/placement/topology"
	"ashlar/s3gw/store/row"
)

type topologyMap = topology.Map

// seeded returns a random source and prints its seed if the test fails.
func seeded(t *testing.T) *rand.Rand {
	seed := rand.Uint64()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	})
	return rand.New(rand.NewPCG(seed, 1))
}

// The example of the S3 manual: states as prefixes, cities as keys.
func TestListManualExample(t *testing.T) {
	r := newRig(t)
	for _, k := range []string{"sample.jpg", "photos/2006/January/sample.jpg", "photos/2006/February/sample2.jpg",
		"photos/2006/February/sample3.jpg", "photos/2006/February/sample4.jpg"} {
		r.put(t, "b", k, k)
	}
	page, err := r.ListObjects(r.ctx, ListRequest{Bucket: "b", Delimiter: "/", Max: 1000})
	want(t, err, nil)
	if !slices.Equal(keysOf(page.Objects), []string{"sample.jpg"}) || !slices.Equal(page.Prefixes, []string{"photos/"}) || page.Truncated {
		t.Fatalf("top: %+v", page)
	}
	o := page.Objects[0]
	if o.Bytes != 10 || o.Owner != "me" || len(o.ETag) != 32 || o.Modified.IsZero() {
		t.Fatalf("listed %+v", o)
	}
	page, err = r.ListObjects(r.ctx, ListRequest{Bucket: "b", Prefix: "photos/2006/", Delimiter: "/", Max: 1000})
	want(t, err, nil)
	if len(page.Objects) != 0 || !slices.Equal(page.Prefixes, []string{"photos/2006/February/", "photos/2006/January/"}) {
		t.Fatalf("below: %+v", page)
	}
}

func TestListMax(t *testing.T) {
	r := newRig(t)
	r.put(t, "b", "k", "x")
	for _, limit := range []int{0, -1} {
		page, err := r.ListObjects(r.ctx, ListRequest{Bucket: "b", Max: limit})
		want(t, err, nil)
		if len(page.Objects) != 0 || page.Truncated {
			t.Fatalf("max %d: %+v", limit, page)
		}
	}
	for i := range ListMax + 5 {
		r.put(t, "b", numbered(i), "")
	}
	page, err := r.ListObjects(r.ctx, ListRequest{Bucket: "b", Max: 5000})
	want(t, err, nil)
	if len(page.Objects) != ListMax || !page.Truncated || page.Last != numbered(ListMax-1) {
		t.Fatalf("%d objects, truncated %t, last %q", len(page.Objects), page.Truncated, page.Last)
	}
}

// listing is what S3 says a full listing is, from the plain set of keys.
func listing(keys []string, prefix, delimiter, after string) (out []string) {
	slices.Sort(keys)
	for _, k := range keys {
		if !strings.HasPrefix(k, prefix) {
			continue
		}
		name := k
		if delimiter != "" {
			if i := strings.Index(k[len(prefix):], delimiter); i >= 0 {
				name = k[:len(prefix)+i+len(delimiter)]
			}
		}
		if name > after && (len(out) == 0 || out[len(out)-1] != name) {
			out = append(out, name)
		}
	}
	return out
}

// All prefixes × delimiters × page sizes × starting points that the keys
// suggest, against the plain set, with scans that answer short pages.
func TestListEqualsModel(t *testing.T) {
	r := newRig(t)
	rnd := seeded(t)
	r.meta.rnd = rnd
	alphabet := []string{"a", "b", "/", "//", "a/", "ä", "\x01", "\x7f", "𝄞", " "}
	set := map[string]bool{"a": true, "a/b": true, "a/": true, "/": true, "//": true, "a0": true}
	for len(set) < 70 {
		var k string
		for range 1 + rnd.IntN(5) {
			k += alphabet[rnd.IntN(len(alphabet))]
		}
		set[k] = true
	}
	var keys []string
	for k := range set {
		keys = append(keys, k)
		r.put(t, "b", k, "")
		// Uploads of the same keys must not disturb the listing.
		if rnd.IntN(4) == 0 {
			_, err := r.CreateUpload(r.ctx, &Upload{Bucket: "b", Key: k})
			want(t, err, nil)
		}
	}
	slices.Sort(keys)
	prefixes := []string{"", "a", "a/", "/", "//", "ä", "b", "zz", "\xc3", "a\x00"}
	afters := []string{"", "a", "a/", "a/b", "/", "zz", "\xff", strings.Repeat("a", 1030)}
	for range 6 {
		k := keys[rnd.IntN(len(keys))]
		prefixes = append(prefixes, k[:rnd.IntN(len(k)+1)])
		afters = append(afters, k, k[:rnd.IntN(len(k)+1)])
	}
	n := 0
	for _, prefix := range prefixes {
		for _, delimiter := range []string{"", "/", "a", "//", "ä", "\x00", "\x01"} {
			for _, after := range afters {
				model := listing(keys, prefix, delimiter, after)
				size := []int{1, 2, 3, 7, len(model), len(model) + 1, 1000}[rnd.IntN(7)]
				got := r.listAll(t, ListRequest{Bucket: "b", Prefix: prefix, Delimiter: delimiter, After: after, Max: max(1, size)})
				if !slices.Equal(got, model) {
					t.Fatalf("prefix %q delimiter %q after %q pages of %d:\n got %q\nwant %q", prefix, delimiter, after, size, got, model)
				}
				n++
			}
		}
	}
	t.Logf("%d listings compared", n)
}

// listAll follows the pages to the end and checks each one's form.
func (r *rig) listAll(t tester, req ListRequest) (names []string) {
	t.Helper()
	for {
		page, err := r.ListObjects(r.ctx, req)
		if err != nil {
			t.Fatalf("list: %v", err)
		}
		merged := append(keysOf(page.Objects), page.Prefixes...)
		slices.Sort(merged)
		if len(merged) > req.Max || (page.Truncated && len(merged) != req.Max) {
			t.Fatalf("a page of %d entries, max %d, truncated %t", len(merged), req.Max, page.Truncated)
		}
		if len(merged) > 0 && page.Last != merged[len(merged)-1] {
			t.Fatalf("last is %q, the page ends with %q", page.Last, merged[len(merged)-1])
		}
		if len(merged) > 0 && merged[0] <= req.After {
			t.Fatalf("the page behind %q begins with %q", req.After, merged[0])
		}
		names = append(names, merged...)
		if !page.Truncated {
			return names
		}
		req.After = page.Last
	}
}

// A delimiter costs a seek per common prefix, not a row per key.
func TestDelimiterSkips(t *testing.T) {
	r := newRig(t)
	for i := range 400 {
		r.put(t, "b", "dir/"+numbered(i), "")
	}
	r.put(t, "b", "z", "")
	b, err := r.lookup(r.ctx, "b")
	want(t, err, nil)
	w := newWalk(row.KindObject, "", "/", b, 10)
	w.current = true
	rows := 0
	for _, sl := range b.slots() {
		st := newStream(r.Store, sl, w)
		want(t, st.fetch(r.ctx), nil)
		rows += len(st.rows)
	}
	if rows != 5 { // one of dir/ per slot, and z
		t.Fatalf("%d rows were read", rows)
	}
}
