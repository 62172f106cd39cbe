package s3gw

import (
	"encoding/xml"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"testing"

	"ashlar"
	"ashlar/daemon/meta/metatest"
	"ashlar/placement/topology"
	"ashlar/s3gw/store"
)

// listed is the part of a listing that these tests look at.
type listed struct {
	Keys     []string `xml:"Contents>Key"`
	Prefixes []string `xml:"CommonPrefixes>Prefix"`
	Next     string   `xml:"NextContinuationToken"`
	Again    string   `xml:"ContinuationToken"`
}

func (g *gateway) list(t testing.TB, target string) (l listed) {
	t.Helper()
	a := g.do(t, testCall{method: "GET", target: target}).want(t, 200, "")
	if err := xml.Unmarshal([]byte(a.body), &l); err != nil {
		t.Fatal(err)
	}
	return l
}

func TestShardsOfANewBucket(t *testing.T) {
	g := startReal(t, "plain")
	create := func(name, shards string) answer {
		return g.do(t, testCall{method: "PUT", target: "/" + name, headers: map[string]string{"x-ashlar-shards": shards}})
	}
	shards := func(name string) string {
		return g.do(t, testCall{method: "HEAD", target: "/" + name}).want(t, 200, "").header.Get("X-Ashlar-Shards")
	}
	if n := shards("plain"); n != "2" {
		t.Errorf("a bucket that asks for nothing has %s shards, the cluster's default is 2", n)
	}
	for _, n := range []string{"1", "64"} {
		create("of-"+n, n).want(t, 200, "")
		if got := shards("of-" + n); got != n {
			t.Errorf("asked for %s shards, got %s", n, got)
		}
	}
	for _, n := range []string{"0", "65", "-1", "4.0", "many", " ", "18446744073709551617"} {
		create("refused", n).want(t, 400, "InvalidArgument")
	}
	g.do(t, testCall{method: "HEAD", target: "/refused"}).want(t, 404, "")
	g.do(t, testCall{method: "PUT", target: "/refused", tamper: func(r *http.Request) {
		r.Header.Set("x-ashlar-shards", "64")
	}}).want(t, 403, "AccessDenied")
}

// TestTokensOutliveGateways takes every page of a listing from another gateway,
// each started anew over the same metadata.
func TestTokensOutliveGateways(t *testing.T) {
	model, bytes := metatest.NewModel(), &heap{data: map[ashlar.WriteID][]byte{}}
	m := &topology.Map{Epoch: 1, Groups: make([]topology.Group, 1), Shards: make([]topology.Shard, 5)}
	fresh := func() *gateway {
		s := store.New(model, bytes, func() *topology.Map { return m }, store.Options{})
		t.Cleanup(s.Close)
		return start(t, func(o *Options) { o.Backend = s })
	}
	for _, shards := range []string{"1", "64"} {
		bucket := "of-" + shards
		g := fresh()
		g.do(t, testCall{method: "PUT", target: "/" + bucket, headers: map[string]string{"x-ashlar-shards": shards}}).want(t, 200, "")
		var want, wantDirs []string
		for i := range 40 {
			key := fmt.Sprintf("dir%02d/ä&<%d", i%10, i)
			g.do(t, testCall{method: "PUT", target: "/" + bucket + "/" + url.PathEscape(key)}).want(t, 200, "")
			want = append(want, key)
		}
		for i := range 10 {
			wantDirs = append(wantDirs, fmt.Sprintf("dir%02d/", i))
		}
		slices.Sort(want)
		walk := func(query string) (keys, dirs []string) {
			for token := ""; ; {
				target := "/" + bucket + "?list-type=2&max-keys=3" + query
				if token != "" {
					target += "&continuation-token=" + url.QueryEscape(token)
				}
				l := fresh().list(t, target)
				if l.Again != token || len(keys)+len(dirs) > len(want) {
					t.Fatalf("the answer repeats the token as %q: want %q", l.Again, token)
				}
				keys, dirs = append(keys, l.Keys...), append(dirs, l.Prefixes...)
				if token = l.Next; token == "" {
					return keys, dirs
				}
			}
		}
		if keys, _ := walk(""); !slices.Equal(keys, want) {
			t.Errorf("%s shards, listed %q\nwant %q", shards, keys, want)
		}
		if _, dirs := walk("&delimiter=%2F"); !slices.Equal(dirs, wantDirs) {
			t.Errorf("%s shards, listed %q\nwant %q", shards, dirs, wantDirs)
		}
	}
	g := fresh()
	for _, token := range []string{"", "x", "dir03/", "YTE6", "!!!!", "YTI6ZGlyMDM=", "YTE6ZGlyMDM", "%00"} {
		g.do(t, testCall{method: "GET", target: "/of-1?list-type=2&continuation-token=" + url.QueryEscape(token)}).want(t, 400, "InvalidArgument")
	}
}
