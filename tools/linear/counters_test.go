package linear

import (
	"context"
	"testing"
	"time"

	"ashlar/daemon/client"
	"ashlar/tools/dev"
	"ashlar/tools/dev/devtest"
	"ashlar/tools/recount"
)

const recountBound = time.Minute

// checkCounters compares the bucket's counters with what its rows say and with
// what a listing shows. Nobody may write to it meanwhile.
func checkCounters(t *testing.T, p *dev.Processes) {
	t.Helper()
	hosts := client.NewHosts(p.Map)
	defer hosts.Close()
	ctx, cancel := context.WithTimeout(context.Background(), recountBound)
	defer cancel()
	// What was left open may still be on its way.
	var b *recount.Bucket
	devtest.Eventually(t, recountBound, func() (err error) {
		if b, err = recount.Of(ctx, client.NewMeta(p.Map, hosts.Shards), Bucket); err != nil {
			return err
		}
		return b.Err()
	})
	t.Logf("counters: %v", b.Counters)
	t.Logf("rows:     %v", b.Rows)
	if b.Rows.Objects == 0 || b.Rows.Bytes == 0 {
		t.Error("an empty bucket: nothing was tested")
	}
	cfg := p.Config()
	g := NewS3(p.Gateways()[0], cfg.AccessKey, cfg.SecretKey, 1)
	defer g.Close()
	objects, bytes := int64(0), int64(0)
	query := "list-type=2"
	for more := true; more; {
		page, err := g.list(ctx, Bucket, query)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range page.Contents {
			objects, bytes = objects+1, bytes+o.Size
		}
		more = page.IsTruncated
		query = "continuation-token=" + escape(page.NextContinuationToken) + "&list-type=2"
	}
	t.Logf("listing:  %d objects of %d bytes", objects, bytes)
	if objects != b.Counters.Objects || bytes != b.Counters.Bytes {
		t.Errorf("the listing shows %d objects of %d bytes, the counters say %v", objects, bytes, b.Counters)
	}
}
