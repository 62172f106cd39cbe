package dev

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"ashlar"
	"ashlar/placement/topology"
	"ashlar/tools/dev/devtest"
)

// refuseBound is how long a request takes at most to be refused when the map
// shows that it cannot be served.
const refuseBound = 15 * time.Second

// TestDegraded breaks clusters of several codes within and beyond what they
// tolerate, and compares every answer with what the group table predicts.
func TestDegraded(t *testing.T) {
	for _, c := range []struct {
		code                                    ashlar.Code
		zones, hosts, disks, members, zonesDown int
	}{
		{ashlar.Code{K: 4, M: 2}, 3, 2, 4, 5, 3},
		{ashlar.Code{K: 8, M: 4}, 3, 2, 2, 3, 1},
		{ashlar.Code{K: 1, M: 2}, 3, 2, 1, 3, 1},
	} {
		t.Run(c.code.String(), func(t *testing.T) {
			t.Parallel()
			cfg := testConfig(t)
			cfg.Profile, cfg.Zones, cfg.Hosts, cfg.Disks, cfg.Members = c.code, c.zones, c.hosts, c.disks, c.members
			d := &degraded{Cluster: startOne(t, cfg), t: t}
			d.s3 = s3Client(t, d.S3(), cfg)
			d.in = d.inspect()
			makeBucket(t, d.s3)
			d.objects = samples(7, "before")
			putAll(t, d.s3, d.objects)
			devtest.AwaitHealthy(t, healBound, d.Status)
			d.disksOfGroup()
			for z := range c.zonesDown {
				d.zone(z)
			}
		})
	}
}

// degraded is a cluster under test and what it should hold.
type degraded struct {
	*Cluster
	t       *testing.T
	s3      *s3.Client
	in      *inspector
	objects []object
	round   int
}

// disksOfGroup kills the disks of one group one by one, beyond the tolerance,
// and revives them.
func (d *degraded) disksOfGroup() {
	large := d.objects[len(d.objects)-2]
	stripes, err := d.in.locate(d.t.Context(), large.key)
	if err != nil || stripes[0].Code != d.cfg.Profile {
		d.t.Fatalf("%v, %v", stripes, err)
	}
	names := stripes[0].disks[:stripes[0].Code.M+1]
	for i, name := range names {
		apply(d.t, d, KillDisk, name)
		if dead := i + 1; dead == 1 || dead >= int(stripes[0].Code.M) {
			d.check(fmt.Sprintf("%d of %d disks of a group are dead", dead, stripes[0].Code.Pieces()))
		}
	}
	if d.readable(large.key, len(large.b)) {
		d.t.Errorf("%s should be beyond its tolerance", large.key)
	}
	for _, name := range names {
		apply(d.t, d, ReviveDisk, name)
	}
	d.check("the disks are back")
}

// zone kills the hosts of a zone one by one, and revives them.
func (d *degraded) zone(z int) {
	hosts := slices.Clone(d.specs[z*d.cfg.Hosts : (z+1)*d.cfg.Hosts])
	if z%2 == 1 {
		slices.Reverse(hosts)
	}
	for i, h := range hosts {
		apply(d.t, d, KillHost, h.Name)
		d.check(fmt.Sprintf("%d of %d hosts of zone %s are dead", i+1, len(hosts), h.Zone))
	}
	for _, o := range d.objects {
		if !d.readable(o.key, len(o.b)) {
			d.t.Errorf("zone %s is down: %s of %d bytes cannot be read", hosts[0].Zone, o.key, len(o.b))
		}
	}
	for _, h := range hosts {
		apply(d.t, d, ReviveHost, h.Name)
	}
}

// check reads, writes, lists and deletes, and demands of every request what the
// group table predicts.
func (d *degraded) check(when string) {
	d.t.Helper()
	d.round++
	reads, refusedReads := 0, 0
	for _, o := range d.objects {
		if d.readable(o.key, len(o.b)) {
			checkOne(d.t, d.s3, o, when)
			reads++
		} else {
			d.wantUnreadable(o, when)
			refusedReads++
		}
	}
	stored, refused := 0, 0
	for _, o := range samples(uint64(100+d.round), fmt.Sprintf("round%d", d.round)) {
		ok := d.live(o.key, len(o.b), ashlar.Code.Quorum)
		if !ok {
			d.wantRefused(o, when)
			refused++
			continue
		}
		ctx, done := bounded(d.t, requestBound, when+": PUT "+o.key)
		err := put(ctx, d.s3, o)
		done()
		if err != nil {
			d.t.Errorf("%s: PUT %s of %d bytes: %v", when, o.key, len(o.b), err)
			continue
		}
		stored++
		checkOne(d.t, d.s3, o, when)
		if stored%2 == 0 {
			d.delete(o, when)
		}
	}
	d.t.Logf("%s: %d objects read, %d unreadable; %d PUTs stored, %d refused", when, reads, refusedReads, stored, refused)
}

// live reports whether every stripe of an object of that size under the key has
// as many live disks as its code needs.
func (d *degraded) live(key string, size int, need func(ashlar.Code) int) bool {
	bucket, _, err := d.in.extents(d.t.Context(), d.objects[0].key)
	if err != nil {
		d.t.Fatal(err)
	}
	m := d.place.Map()
	s := m.Settings
	e := ashlar.Extent{Bytes: uint64(size), StripeBytes: s.StripeBytes, SmallMax: s.SmallMax, Large: s.Large, Small: s.Small}
	for stripe := range e.Stripes(bucket, key, 0, e.Bytes) {
		if liveDisks(m, stripe) < need(stripe.Code) {
			return false
		}
	}
	return true
}

func liveDisks(m *topology.Map, s ashlar.Stripe) (live int) {
	_, g := m.Group(s.ID)
	for _, n := range g.Disks[:s.Code.Pieces()] {
		if m.Live(n) {
			live++
		}
	}
	return live
}

func (d *degraded) readable(key string, size int) bool {
	return d.live(key, size, func(c ashlar.Code) int { return int(c.K) })
}

// wantUnreadable demands that an object with too few pieces is refused in time:
// it is neither absent nor read wrong, and its metadata is there.
func (d *degraded) wantUnreadable(o object, when string) {
	d.t.Helper()
	ctx, done := bounded(d.t, refuseBound, when+": refused GET "+o.key)
	_, err := get(ctx, d.s3, o.key, "")
	done()
	// If the first stripe can be read, the answer has begun and must break off.
	first := int(d.place.Map().Settings.StripeBytes)
	begun := len(o.b) > first && d.readable(o.key, first)
	if code := status(err); err == nil || code != http.StatusServiceUnavailable && !(begun && code == 0) {
		d.t.Errorf("%s: GET %s, which has fewer than k pieces: %v, want 503", when, o.key, err)
	}
	head, err := d.s3.HeadObject(d.t.Context(), &s3.HeadObjectInput{Bucket: aws.String(bucketName), Key: &o.key})
	if err != nil || aws.ToInt64(head.ContentLength) != int64(len(o.b)) {
		d.t.Errorf("%s: HEAD %s: %v", when, o.key, err)
	}
}

// wantRefused demands that a PUT that cannot reach its quorum gets 503 in time
// and stores nothing.
func (d *degraded) wantRefused(o object, when string) {
	d.t.Helper()
	ctx, done := bounded(d.t, refuseBound, when+": refused PUT "+o.key)
	err := put(ctx, d.s3, o)
	done()
	if status(err) != http.StatusServiceUnavailable {
		d.t.Errorf("%s: PUT %s of %d bytes, which cannot reach its quorum: %v, want 503", when, o.key, len(o.b), err)
	}
	d.wantAbsent(o.key, when)
}

func (d *degraded) delete(o object, when string) {
	d.t.Helper()
	ctx, done := bounded(d.t, requestBound, when+": DELETE "+o.key)
	_, err := d.s3.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: aws.String(bucketName), Key: &o.key})
	done()
	if err != nil {
		d.t.Errorf("%s: DELETE %s: %v", when, o.key, err)
	}
	d.wantAbsent(o.key, when)
}

func (d *degraded) wantAbsent(key, when string) {
	d.t.Helper()
	ctx, done := bounded(d.t, requestBound, when+": GET "+key)
	defer done()
	_, err := get(ctx, d.s3, key, "")
	var missing *types.NoSuchKey
	if !errors.As(err, &missing) {
		d.t.Errorf("%s: GET %s: %v, want NoSuchKey", when, key, err)
	}
	out, err := d.s3.ListObjectsV2(context.WithoutCancel(ctx), &s3.ListObjectsV2Input{Bucket: aws.String(bucketName), Prefix: &key})
	if err != nil || slices.ContainsFunc(out.Contents, func(o types.Object) bool { return aws.ToString(o.Key) == key }) {
		d.t.Errorf("%s: LIST %s: %v, %v", when, key, out, err)
	}
}
