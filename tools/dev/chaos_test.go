package dev

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

var (
	chaosDuration = flag.Duration("chaos.duration", 45*time.Second, "how long TestChaos breaks things")
	chaosSeed     = flag.Uint64("chaos.seed", 0, "seed of TestChaos; 0 chooses one")
	chaosKeep     = flag.String("chaos.keep", "", "directory that TestChaos leaves its cluster in")
)

const (
	chaosClients = 6
	// chaosKeysMax bounds the keys of each client. Every third PUT makes a new
	// one, so that many objects are written once and must stay.
	chaosKeysMax = 400
	// chaosGrace lets the trash worker free pieces while the test runs: freeing a
	// live one must show.
	chaosGrace = 3 * time.Second
	// healBound is how long the cluster may take from its last fault to HEALTHY
	// with nothing to repair, on a busy machine.
	healBound = 90 * time.Second
	// errorPause is what a client waits after an error, as any would.
	errorPause = 100 * time.Millisecond
)

// TestChaos writes with several clients while a nemesis kills processes, hosts
// and disks, and everything at once, and then reads back every object.
func TestChaos(t *testing.T) {
	seed := *chaosSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	cfg := testConfig(t)
	cfg.Gateways, cfg.TrashGrace = 2, chaosGrace
	if *chaosKeep != "" {
		cfg.Dir = *chaosKeep
	}
	t.Logf("seed %d: go test ./tools/dev -run TestChaos -chaos.seed=%d -chaos.duration=%v", seed, seed, *chaosDuration)
	p := startMany(t, cfg)
	run := newChaos(t, p, seed)
	makeBucket(t, run.gateways[0])

	stop := make(chan struct{}) // closed when the nemesis has ended
	var wg sync.WaitGroup
	for i := range chaosClients {
		c := run.newClient(i)
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					c.step()
				}
			}
		})
	}
	n := &nemesis{chaos: run, p: p, rng: rand.New(rand.NewPCG(seed, 1))}
	n.run(*chaosDuration)
	close(stop)
	wg.Wait()
	n.heal()

	begin := time.Now()
	awaitHealthy(t, healBound, p.Status)
	run.logf("healthy, nothing to repair, %.1f s after the last fault", time.Since(begin).Seconds())
	run.readBack()
	run.checkList()
	run.countPieces(newInspector(t, p.place))
	run.report()
}

// chaos is one run: its clients, what they know, and what was counted.
type chaos struct {
	t        *testing.T
	seed     uint64
	began    time.Time
	gateways []*s3.Client
	clients  []*chaosClient
	inspect  *inspector

	mu     sync.Mutex
	counts map[string]int
	kills  map[string]int
	lost   int
	change int
	sizes  uint64
	worst  time.Duration // the longest request
}

func newChaos(t *testing.T, p *Processes, seed uint64) *chaos {
	c := &chaos{t: t, seed: seed, began: time.Now(), counts: map[string]int{}, kills: map[string]int{}}
	c.inspect = newInspector(t, p.place)
	for _, url := range p.Gateways() {
		c.gateways = append(c.gateways, s3Client(t, url, p.Config()))
	}
	return c
}

func (c *chaos) logf(format string, args ...any) {
	c.t.Logf("%8.3f s  %s", time.Since(c.began).Seconds(), fmt.Sprintf(format, args...))
}

func (c *chaos) count(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts[what]++
}

// broken fails the test with what is known about the key.
func (c *chaos) broken(b *breach, key string) {
	c.mu.Lock()
	if b.lost {
		c.lost++
	} else {
		c.change++
	}
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	stripes, err := c.inspect.locate(ctx, key)
	where := fmt.Sprintf("no pieces: %v", err)
	if err == nil {
		where = ""
		for _, s := range stripes {
			where += s.String() + "\n"
		}
	}
	c.t.Errorf("%s\n%s", b.text, where)
}

// chaosClient owns some keys and writes, deletes and reads them.
type chaosClient struct {
	*chaos
	rng    *rand.Rand
	prefix string
	keys   []*chaosKey
	seq    int
}

type chaosKey struct {
	*judge
	writes map[int]chaosWrite // by seq; those that may be read
}

// chaosWrite is what a write would leave if it happened.
type chaosWrite struct {
	size  int
	parts []int
}

func (c *chaos) newClient(i int) *chaosClient {
	cl := &chaosClient{chaos: c, rng: rand.New(rand.NewPCG(c.seed, uint64(100+i))), prefix: fmt.Sprintf("c%d/", i)}
	c.clients = append(c.clients, cl)
	return cl
}

// newKey makes one more key. Keys with a level more, a space and other letters
// must be as safe.
func (c *chaosClient) newKey() *chaosKey {
	n := len(c.keys)
	key := c.prefix + []string{"plain", "a b", "d/e", "ü"}[n%4] + strconv.Itoa(n)
	c.keys = append(c.keys, &chaosKey{newJudge(key, c.began), map[int]chaosWrite{}})
	return c.keys[n]
}

// anyKey chooses among the keys; the newest are chosen most often, so that
// requests for one key meet the same fault.
func (c *chaosClient) anyKey() *chaosKey {
	n := len(c.keys)
	if n == 0 {
		return c.newKey()
	}
	if c.rng.IntN(2) == 0 {
		return c.keys[n-1-c.rng.IntN(min(n, 6))]
	}
	return c.keys[c.rng.IntN(n)]
}

// step makes one request and judges its answer.
func (c *chaosClient) step() {
	k := c.anyKey()
	g := c.gateways[c.rng.IntN(len(c.gateways))]
	ctx, cancel := context.WithTimeout(context.Background(), requestBound)
	defer cancel()
	begin := time.Now()
	var err error
	switch n := c.rng.IntN(100); {
	case n < 40:
		if n < 13 && len(c.keys) < chaosKeysMax {
			k = c.newKey()
		}
		err = c.put(ctx, g, k)
	case n < 47:
		err = c.upload(ctx, g, k)
	case n < 57:
		err = c.delete(ctx, g, k)
	case n < 60:
		err = c.list(ctx, g, c.prefix, c.keys)
	default:
		err = c.get(ctx, g, k, begin)
	}
	c.ended(ctx, err, begin, k.key)
}

// ended counts a failed request and judges how it failed.
func (c *chaosClient) ended(ctx context.Context, err error, begin time.Time, key string) {
	took := time.Since(begin)
	c.mu.Lock()
	c.worst = max(c.worst, took)
	c.mu.Unlock()
	var b *breach
	switch code := status(err); {
	case err == nil:
		return
	case errors.As(err, &b):
		c.broken(b, key)
	case ctx.Err() != nil:
		c.t.Errorf("%8.3f s  %s: no end after %v: %v", time.Since(c.began).Seconds(), key, took, err)
	case code >= 500:
		c.count("answers " + strconv.Itoa(code))
	case code != 0:
		c.t.Errorf("%8.3f s  %s: unexpected answer: %v", time.Since(c.began).Seconds(), key, err)
	default:
		c.count("broken connections")
	}
	time.Sleep(errorPause)
}

// size is mostly small, sometimes of two stripes.
func (c *chaosClient) size() int {
	switch n := c.rng.IntN(100); {
	case n < 5:
		return 0
	case n < 45:
		return 1 + c.rng.IntN(4<<10)
	case n < 75:
		return 1 + c.rng.IntN(devSmallMax)
	case n < 93:
		return 1 + c.rng.IntN(1<<20)
	case n < 98:
		return 1 + c.rng.IntN(4<<20)
	default:
		return devStripeBytes + c.rng.IntN(1<<20)
	}
}

// written judges the end of a write.
func (c *chaosClient) written(what string, k *chaosKey, seq int, err error) {
	if err != nil {
		k.unanswered(what, seq, time.Now(), err)
		return
	}
	k.acknowledged(what, seq, time.Now())
	c.count("acknowledged " + what)
	maps.DeleteFunc(k.writes, func(s int, _ chaosWrite) bool { return s != seq })
}

func (c *chaosClient) next(k *chaosKey, w chaosWrite) (seq int, b []byte) {
	c.seq++
	k.writes[c.seq] = w
	return c.seq, content(c.seed, k.key, c.seq, w.size)
}

func seqAttributes(seq int) map[string]string { return map[string]string{"seq": strconv.Itoa(seq)} }

func (c *chaosClient) put(ctx context.Context, g *s3.Client, k *chaosKey) error {
	seq, b := c.next(k, chaosWrite{size: c.size()})
	_, err := g.PutObject(ctx, &s3.PutObjectInput{
		Bucket: aws.String(bucketName), Key: &k.key, Body: bytes.NewReader(b), Metadata: seqAttributes(seq),
	})
	c.written("PUT", k, seq, err)
	return err
}

func (c *chaosClient) delete(ctx context.Context, g *s3.Client, k *chaosKey) error {
	_, err := g.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: aws.String(bucketName), Key: &k.key})
	c.written("DELETE", k, absent, err)
	return err
}

// upload writes in parts. Only Complete changes the key.
func (c *chaosClient) upload(ctx context.Context, g *s3.Client, k *chaosKey) error {
	parts := []int{1 + c.rng.IntN(200_000)}
	if c.rng.IntN(6) == 0 {
		parts = []int{5 << 20, 1 + c.rng.IntN(1<<20)}
	}
	size := 0
	for _, n := range parts {
		size += n
	}
	seq, b := c.next(k, chaosWrite{size, parts})
	up, err := g.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{
		Bucket: aws.String(bucketName), Key: &k.key, Metadata: seqAttributes(seq),
	})
	if err != nil {
		return err
	}
	var done []types.CompletedPart
	for i, n := range parts {
		number := aws.Int32(int32(i + 1))
		part, err := g.UploadPart(ctx, &s3.UploadPartInput{
			Bucket: aws.String(bucketName), Key: &k.key, UploadId: up.UploadId, PartNumber: number, Body: bytes.NewReader(b[:n]),
		})
		if err != nil {
			return err
		}
		done, b = append(done, types.CompletedPart{ETag: part.ETag, PartNumber: number}), b[n:]
	}
	_, err = g.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
		Bucket: aws.String(bucketName), Key: &k.key, UploadId: up.UploadId,
		MultipartUpload: &types.CompletedMultipartUpload{Parts: done},
	})
	c.written("Complete", k, seq, err)
	return err
}

// get reads an object and judges it: which write it is, and whether it is that
// write from the first byte to the last.
func (c *chaosClient) get(ctx context.Context, g *s3.Client, k *chaosKey, began time.Time) error {
	out, err := g.GetObject(ctx, &s3.GetObjectInput{Bucket: aws.String(bucketName), Key: &k.key})
	var missing *types.NoSuchKey
	if errors.As(err, &missing) {
		c.count("reads")
		return asError(k.read(absent, began))
	}
	if err != nil {
		return err
	}
	defer out.Body.Close()
	b, err := io.ReadAll(out.Body)
	if err != nil {
		return err
	}
	c.count("reads")
	seq, err := strconv.Atoi(out.Metadata["seq"])
	if err != nil {
		return k.wrong("attributes %v", out.Metadata)
	}
	if b := k.read(seq, began); b != nil {
		return b
	}
	w := k.writes[seq]
	want := content(c.seed, k.key, seq, w.size)
	switch {
	case !bytes.Equal(b, want):
		return k.wrong("write %d: %d bytes of which the first wrong one is %d, want %d bytes", seq, len(b), firstDifference(b, want), w.size)
	case aws.ToString(out.ETag) != etag(want, w.parts):
		return k.wrong("write %d: ETag %s, want %s", seq, aws.ToString(out.ETag), etag(want, w.parts))
	}
	return nil
}

// asError keeps a nil breach from becoming an error that is not nil.
func asError(b *breach) error {
	if b == nil {
		return nil
	}
	return b
}

func (j *judge) wrong(format string, args ...any) *breach {
	b := j.breach(-1)
	b.text = fmt.Sprintf(format, args...) + "\n" + b.text
	return b
}

func firstDifference(a, b []byte) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// list judges a listing of keys whose owner does nothing else meanwhile.
func (c *chaosClient) list(ctx context.Context, g *s3.Client, prefix string, keys []*chaosKey) error {
	found := map[string]types.Object{}
	pages := s3.NewListObjectsV2Paginator(g, &s3.ListObjectsV2Input{
		Bucket: aws.String(bucketName), Prefix: &prefix, MaxKeys: aws.Int32(int32(20 + c.rng.IntN(200))),
	})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return err
		}
		for _, o := range page.Contents {
			if _, twice := found[aws.ToString(o.Key)]; twice {
				return &breach{text: "listed twice: " + aws.ToString(o.Key)}
			}
			found[aws.ToString(o.Key)] = o
		}
	}
	c.count("lists")
	for _, k := range keys {
		o, ok := found[k.key]
		delete(found, k.key)
		if err := c.listed(k, o, ok); err != nil {
			return err
		}
	}
	for key := range found {
		return &breach{text: "listed, but never written: " + key}
	}
	return nil
}

// listed judges one key's place in a listing, which names no write: what is
// listed must be one that is allowed.
func (c *chaosClient) listed(k *chaosKey, o types.Object, ok bool) error {
	if !ok {
		if !k.allows(absent) {
			return k.wrong("not in the listing")
		}
		return nil
	}
	for _, cl := range k.allowed {
		w, written := k.writes[cl.seq]
		if written && int64(w.size) == aws.ToInt64(o.Size) &&
			aws.ToString(o.ETag) == etag(content(c.seed, k.key, cl.seq, w.size), w.parts) {
			return nil
		}
	}
	return k.wrong("listed with %d bytes and ETag %s", aws.ToInt64(o.Size), aws.ToString(o.ETag))
}

// readBack reads every key through every gateway. Everything is at rest, so
// every request must succeed, and the first read decides what may be there.
func (c *chaos) readBack() {
	var wg sync.WaitGroup
	for _, cl := range c.clients {
		wg.Go(func() {
			for _, k := range cl.keys {
				k.settle()
				for _, g := range c.gateways {
					cl.mustGet(g, k)
				}
			}
		})
	}
	wg.Wait()
}

func (c *chaosClient) mustGet(g *s3.Client, k *chaosKey) {
	ctx, cancel := context.WithTimeout(context.Background(), requestBound)
	defer cancel()
	err := c.get(ctx, g, k, time.Now())
	var b *breach
	switch {
	case errors.As(err, &b):
		c.broken(b, k.key)
	case err != nil:
		c.broken(k.wrong("the cluster is healthy, but GET says %v", err), k.key)
	}
}

// checkList compares a listing of everything with what was read back.
func (c *chaos) checkList() {
	var all []*chaosKey
	for _, cl := range c.clients {
		all = append(all, cl.keys...)
	}
	for i, g := range c.gateways {
		ctx, cancel := context.WithTimeout(context.Background(), requestBound)
		err := c.clients[0].list(ctx, g, "", all)
		cancel()
		if err != nil {
			c.t.Errorf("LIST through gateway %d: %v", i+1, err)
		}
	}
}

// countPieces says how many pieces the objects have. A piece may be missing
// without a note if its coordinator was killed before it could make one; an
// object with fewer than its quorum was never rightly acknowledged.
func (c *chaos) countPieces(in *inspector) {
	objects, pieces, missing := 0, 0, 0
	for _, cl := range c.clients {
		for _, k := range cl.keys {
			if k.only() == absent {
				continue
			}
			objects++
			stripes, err := in.locate(context.Background(), k.key)
			if err != nil {
				c.t.Errorf("%s: %v", k.key, err)
			}
			for _, s := range stripes {
				has := 0
				for _, h := range s.has {
					has += map[bool]int{true: 1}[h == "yes"]
				}
				pieces, missing = pieces+len(s.has), missing+len(s.has)-has
				if has < s.Code.Quorum() {
					c.t.Errorf("%s: fewer pieces than acknowledged it: %v", k.key, s)
				}
			}
		}
	}
	c.logf("%d objects, %d pieces, %d missing", objects, pieces, missing)
}

// report prints what was done, and fails if something that had to be tried was
// never tried.
func (c *chaos) report() {
	c.mu.Lock()
	defer c.mu.Unlock()
	var lines []string
	for _, what := range slices.Sorted(maps.Keys(c.counts)) {
		lines = append(lines, fmt.Sprintf("%s %d", what, c.counts[what]))
	}
	var kills []string
	for _, what := range slices.Sorted(maps.Keys(c.kills)) {
		kills = append(kills, fmt.Sprintf("%s %d", what, c.kills[what]))
	}
	c.t.Logf("seed %d: %s; longest request %.1f s", c.seed, strings.Join(lines, ", "), c.worst.Seconds())
	c.t.Logf("kills: %s", strings.Join(kills, ", "))
	c.t.Logf("%d lost, %d changed", c.lost, c.change)
	for _, what := range []string{"acknowledged PUT", "acknowledged DELETE", "acknowledged Complete", "reads", "lists"} {
		if c.counts[what] == 0 {
			c.t.Errorf("no %s: nothing was tested", what)
		}
	}
	for _, what := range nemesisKinds {
		if c.kills[what] == 0 {
			c.t.Errorf("no kill of %s: nothing was tested", what)
		}
	}
	if c.kills[killAll] < 2 {
		c.t.Errorf("everything was killed %d times, want 2", c.kills[killAll])
	}
}

// What the nemesis kills. A process is started again by the supervisor, hosts
// and disks by the nemesis.
const (
	killDaemon  = "daemon"
	killMember  = "placement member"
	killGateway = "gateway"
	killHost    = "host"
	killDisk    = "disk"
	killAll     = "everything"
)

var nemesisKinds = []string{killDaemon, killMember, killGateway, killHost, killDisk}

// nemesis breaks a cluster of processes.
type nemesis struct {
	*chaos
	p     *Processes
	rng   *rand.Rand
	deck  []string
	dead  map[string]time.Time // disks and hosts, and when they come back
	alls  int
	since time.Time
}

// Bounds of what is broken at the same time: the promise holds beyond them, but
// nothing could be written.
const (
	deadHostsMax = 1
	deadDisksMax = 2
)

func (n *nemesis) run(d time.Duration) {
	n.dead, n.since = map[string]time.Time{}, time.Now()
	for time.Since(n.since) < d {
		time.Sleep(time.Duration(300+n.rng.IntN(1700)) * time.Millisecond)
		n.revive(func(back time.Time) bool { return time.Now().After(back) })
		// Everything at once at one and two thirds of the time, then every 30 s.
		if time.Since(n.since) > time.Duration(n.alls+1)*min(d/3, 30*time.Second) && n.alls < max(2, int(d/(30*time.Second))) {
			n.alls++
			n.killEverything()
			continue
		}
		n.step()
	}
	for ; n.alls < 2; n.alls++ {
		n.killEverything()
	}
}

// step deals from a shuffled deck, so that every kind comes up.
func (n *nemesis) step() {
	if len(n.deck) == 0 {
		n.deck = slices.Clone(nemesisKinds)
		n.rng.Shuffle(len(n.deck), func(i, j int) { n.deck[i], n.deck[j] = n.deck[j], n.deck[i] })
	}
	kind := n.deck[0]
	n.deck = n.deck[1:]
	switch kind {
	case killDaemon:
		n.signal(kind, n.host())
	case killMember:
		n.signal(kind, fmt.Sprintf("p%d", 1+n.rng.IntN(n.p.cfg.Members)))
	case killGateway:
		n.signal(kind, fmt.Sprintf("g%d", 1+n.rng.IntN(n.p.cfg.Gateways)))
	case killHost:
		if n.deadOnes(false) < deadHostsMax {
			n.fault(kind, KillHost, n.host())
		}
	case killDisk:
		if n.deadOnes(true) < deadDisksMax {
			spec := n.p.specs[n.rng.IntN(len(n.p.specs))]
			n.fault(kind, KillDisk, spec.Disks[n.rng.IntN(len(spec.Disks))].Name)
		}
	}
}

func (n *nemesis) host() string { return n.p.specs[n.rng.IntN(len(n.p.specs))].Name }

// deadOnes counts the dead disks or the dead hosts.
func (n *nemesis) deadOnes(disks bool) (c int) {
	for name := range n.dead {
		if strings.Contains(name, "/") == disks {
			c++
		}
	}
	return c
}

// signal kills one process, which the supervisor starts again. That it does not
// run now is not worth a word.
func (n *nemesis) signal(kind, name string) {
	if _, running := n.p.PIDs()[name]; !running {
		return
	}
	n.p.super.signal(name, syscall.SIGKILL)
	n.kills[kind]++
	n.logf("nemesis: kill -9 %s", name)
}

func (n *nemesis) killEverything() {
	pids := n.p.PIDs()
	for name := range pids {
		n.p.super.signal(name, syscall.SIGKILL)
	}
	n.kills[killAll]++
	n.logf("nemesis: kill -9 of all %d processes", len(pids))
}

// fault kills a host or disk for a while.
func (n *nemesis) fault(kind, verb, name string) {
	if _, already := n.dead[name]; already {
		return
	}
	err := n.p.Fault(context.Background(), verb, name)
	n.kills[kind]++
	n.dead[name] = time.Now().Add(time.Duration(1+n.rng.IntN(5)) * time.Second)
	n.logf("nemesis: %s %s (%v)", verb, name, err)
}

// revive brings back what is due. A map that does not show it yet is no reason
// to wait: the quorum may be dead at the moment.
func (n *nemesis) revive(due func(time.Time) bool) {
	for _, name := range slices.Sorted(maps.Keys(n.dead)) {
		if !due(n.dead[name]) {
			continue
		}
		verb := ReviveHost
		if strings.Contains(name, "/") {
			verb = ReviveDisk
		}
		err := n.p.Fault(context.Background(), verb, name)
		delete(n.dead, name)
		n.logf("nemesis: %s %s (%v)", verb, name, err)
	}
}

// heal brings everything back.
func (n *nemesis) heal() {
	n.revive(func(time.Time) bool { return true })
	if switches, err := filepath.Glob(filepath.Join(n.p.cfg.faultDir(), "*")); err != nil || len(switches) > 0 {
		n.t.Errorf("fault switches are left: %v, %v", switches, err)
	}
	for _, spec := range n.p.specs {
		if err := n.p.super.start(spec.Name); err != nil {
			n.t.Error(err)
		}
	}
}
