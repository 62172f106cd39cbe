package dev

import (
	"fmt"
	"net/http"
	"os/exec"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"ashlar"
	"ashlar/daemon/meta"
	"ashlar/placement/topology"
	"ashlar/tools/dev/devtest"
)

// TestReadsWithoutALeader takes the majority of every shard away. A bucket that
// allows stale reads goes on showing what was there, and how old that is; another
// one answers 503. What a session saw and wrote is never missed.
func TestReadsWithoutALeader(t *testing.T) {
	cfg := testConfig(t)
	cfg.Zones, cfg.Hosts, cfg.Disks, cfg.Members, cfg.Profile = 3, 1, 3, 3, ashlar.Code{K: 2, M: 1}
	c := startOne(t, cfg)
	f := &followClient{t: t, cfg: cfg, url: c.S3()}
	for _, bucket := range []string{"strict", "lenient"} {
		if code, _ := f.ask("PUT", "/"+bucket, nil); code != 200 {
			t.Fatal(code)
		}
	}
	set := exec.Command(devtest.Program(t), "bucket", "set", "lenient", "reads=follower,stale", "--endpoint", c.S3(),
		"--access-key", cfg.AccessKey, "--secret-key", cfg.SecretKey)
	if out, err := set.CombinedOutput(); err != nil || string(out) != "lenient: reads=follower,stale\n" {
		t.Fatalf("%v: %s", err, out)
	}
	devtest.Eventually(t, time.Minute, func() error { // gateways keep a bucket's record for two seconds
		if code, age := f.ask("HEAD", "/lenient/none", nil); code != 404 || age < 0 {
			return fmt.Errorf("the setting does not show: %d, age %d", code, age)
		}
		return nil
	})
	session := ""
	for n := range 50 {
		target := fmt.Sprintf("/lenient/k%02d", n)
		if code, _ := f.ask("PUT", target, &session); code != 200 || session == "" {
			t.Fatal(target, code, session)
		}
		if code, age := f.ask("HEAD", target, &session); code != 200 || age < 0 {
			t.Fatalf("%s is not there for who wrote it: %d, age %d ms", target, code, age)
		}
	}
	if code, _ := f.ask("PUT", "/strict/k", nil); code != 200 {
		t.Fatal(code)
	}
	none := ""
	if code, age := f.ask("HEAD", "/strict/k", &none); code != 200 || age >= 0 || none != "" {
		t.Fatalf("a bucket that allows nothing: %d, age %d, session %q", code, age, none)
	}
	bad := "YTE"
	if code, _ := f.ask("HEAD", "/lenient/k00", &bad); code != 200 {
		t.Errorf("the token of a session that saw nothing: %d", code)
	}
	for _, bad := range []string{"x", "YTI", "YTGA"} {
		if code, _ := f.ask("GET", "/lenient/k00", &bad); code != 400 {
			t.Errorf("token %q: %d", bad, code)
		}
	}
	f.awaitAges(c, "c1")
	for _, host := range []string{"a1", "b1"} {
		if err := c.Fault(t.Context(), KillHost, host); err != nil {
			t.Fatal(err)
		}
	}
	gone := time.Now()
	devtest.Eventually(t, 2*time.Minute, func() error {
		code, age := f.ask("HEAD", "/lenient/k00", nil)
		if code != 200 || age < 2000 {
			return fmt.Errorf("without a leader: %d, age %d ms", code, age)
		}
		return nil
	})
	// The last leader was gone by then: no answer may say that it is newer.
	atLeast := time.Since(gone)
	if code, age := f.ask("GET", "/lenient?list-type=2", nil); code != 200 || time.Duration(age)*time.Millisecond < atLeast {
		t.Errorf("a listing without a leader: %d, age %d ms, at least %v", code, age, atLeast)
	}
	if code, _ := f.ask("HEAD", "/strict/k", nil); code != 503 {
		t.Errorf("a bucket that allows nothing answers %d without a leader", code)
	}
	if code, _ := f.ask("PUT", "/lenient/late", nil); code != 503 {
		t.Errorf("a write without a leader: %d", code)
	}
	for _, host := range []string{"a1", "b1"} {
		if err := c.Fault(t.Context(), ReviveHost, host); err != nil {
			t.Fatal(err)
		}
	}
	devtest.Eventually(t, 2*time.Minute, func() error {
		if code, age := f.ask("HEAD", "/lenient/k49", &session); code != 200 || age > 2000 {
			return fmt.Errorf("after healing: %d, age %d ms", code, age)
		}
		return nil
	})
}

// awaitAges waits until the replicas of a host that will stay alone have heard from
// the leader of their shard: one that never has does not know how old its state is,
// and may show none.
func (f *followClient) awaitAges(c *Cluster, name string) {
	m := c.place.Map()
	host := slices.IndexFunc(m.Hosts, func(h topology.Host) bool { return h.Name == name })
	shards, err := c.registry.Shards(m.Hosts[host].ID)
	if err != nil {
		f.t.Fatal(err)
	}
	devtest.Eventually(f.t, time.Minute, func() error {
		for shard := range m.Shards {
			_, seen, err := shards.GetAt(f.t.Context(), ashlar.ShardID(shard), []byte("none"), meta.At{})
			if !ashlar.Is(err, ashlar.NotFound) || seen.Age <= 0 {
				return fmt.Errorf("shard %d on %s: age %v, %v", shard, name, seen.Age, err)
			}
		}
		return nil
	})
}

// ask sends one signed request, with the session if there is one, takes the one
// that comes back, and returns the status and the age in ms, -1 if none is said.
func (f *followClient) ask(method, target string, session *string) (code, age int) {
	f.t.Helper()
	r, err := http.NewRequestWithContext(f.t.Context(), method, f.url+target, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	if session != nil && *session != "" {
		r.Header.Set("X-Ashlar-Session", *session)
	}
	const emptySHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	r.Header.Set("X-Amz-Content-Sha256", emptySHA256)
	cred := aws.Credentials{AccessKeyID: f.cfg.AccessKey, SecretAccessKey: f.cfg.SecretKey}
	if err := v4.NewSigner().SignHTTP(f.t.Context(), cred, r, emptySHA256, "s3", "us-east-1", time.Now()); err != nil {
		f.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		f.t.Fatal(err)
	}
	resp.Body.Close()
	if s := resp.Header.Get("X-Ashlar-Session"); session != nil && s != "" {
		*session = s
	}
	age = -1
	if text := resp.Header.Get("X-Ashlar-Age-Ms"); text != "" {
		if age, err = strconv.Atoi(text); err != nil {
			f.t.Fatal(err)
		}
	}
	return resp.StatusCode, age
}

// followClient speaks to a gateway with headers of its own.
type followClient struct {
	t   *testing.T
	cfg Config
	url string
}
