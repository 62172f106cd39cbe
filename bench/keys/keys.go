// Package keys fills one bucket with very many keys and measures what that does
// to listings. It is the library behind `ashlar bench keys`.
//
// A run starts a cluster of its own (`ashlar dev`: three hosts in three zones,
// so every shard has three replicas, each synced to a file system) and speaks to
// it over HTTP only. A key is one signed PUT with an empty body: every layer of
// a PUT runs but the one that stores pieces, for there are no bytes to store.
//
//	fill      PUTs, many in flight, until a checkpoint is reached
//	settle    until the cluster has nothing left to do
//	measure   listings one after the other: pages of 1,000 behind random keys, and
//	          delimiter listings of the root and of random directories
//	kill      SIGKILL to every process of the cluster; start it again
//	count     list the whole bucket: every key must be there, in order, once
//
// The number of directories is the same at every checkpoint, so that answers are
// alike and only the bucket grows. A run that is interrupted goes on where it
// was when it is started again on its directory.
package keys

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"ashlar/bench/measure"
)

// Options describes a run. Program, Dir and Checkpoints must be given.
type Options struct {
	Program string // the ashlar binary
	Dir     string // holds the cluster and what is known of the run
	// Checkpoints are numbers of keys at which listings are measured, ascending.
	Checkpoints []int
	Listings    int // of each kind at a checkpoint
	Concurrent  int // PUTs in flight
	// Processes runs every service of the cluster as a process of its own.
	Processes bool
	// Profile, if given, is where the cluster writes a CPU profile.
	Profile  string
	Seed     uint64
	Progress func(string)
}

// Bounds of a run.
const (
	KeysMax        = 1_000_000_000
	ConcurrentMax  = 8192
	bucket         = "keys"
	region         = "us-east-1"
	requestTimeout = 60 * time.Second
)

func (o *Options) check() error {
	switch {
	case len(o.Checkpoints) == 0 || !slices.IsSorted(o.Checkpoints):
		return errors.New("checkpoints must be given in ascending order")
	case o.Checkpoints[0] < 1 || o.Checkpoints[len(o.Checkpoints)-1] > KeysMax:
		return fmt.Errorf("%d keys: want 1 to %d", o.Checkpoints[len(o.Checkpoints)-1], KeysMax)
	case o.Listings < 1:
		return fmt.Errorf("%d listings: want at least 1", o.Listings)
	case o.Concurrent < 1 || o.Concurrent > ConcurrentMax:
		return fmt.Errorf("%d PUTs in flight: want 1 to %d", o.Concurrent, ConcurrentMax)
	}
	return nil
}

// Checkpoint is what was measured at one size of the bucket.
type Checkpoint struct {
	Keys int `json:"keys"`
	// Of the stretch of PUTs that ended here.
	Puts          int     `json:"puts"`
	PutSeconds    float64 `json:"put_seconds"`
	PutServerCPU  float64 `json:"put_server_cpu_seconds"`
	PutClientCPU  float64 `json:"put_client_cpu_seconds"`
	PutRetries    int     `json:"put_retries"`
	MetaBytes     int64   `json:"meta_bytes"` // on disk, of all replicas
	Replicas      int     `json:"replicas"`
	ResidentBytes int64   `json:"resident_bytes"`

	Kinds []Kind `json:"listings"`
}

// Kind is one kind of listing at a checkpoint.
type Kind struct {
	Name    string        `json:"name"`
	Count   int           `json:"count"`
	Entries float64       `json:"entries"` // in an answer, on average
	P50     time.Duration `json:"p50_ns"`
	P99     time.Duration `json:"p99_ns"`
	// ServerCPU is the cluster's, per listing.
	ServerCPU time.Duration `json:"server_cpu_ns"`
}

// Result is what a run found. It is saved in the directory after every step.
type Result struct {
	Seed   uint64 `json:"seed"`
	Filled int    `json:"filled"` // keys that were acknowledged
	// Checkpoints are those that were passed, ascending.
	Checkpoints []Checkpoint `json:"checkpoints"`
	// Counted is what a full listing found after kill -9 of all, and how long that took.
	Counted      int     `json:"counted"`
	CountSeconds float64 `json:"count_seconds"`
	StartSeconds float64 `json:"restart_seconds"`
}

const resultFile = "keys.json"

func (r *Result) save(dir string) error {
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	path := filepath.Join(dir, resultFile)
	if err := os.WriteFile(path+".new", append(raw, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func load(dir string, seed uint64) (*Result, error) {
	raw, err := os.ReadFile(filepath.Join(dir, resultFile))
	if errors.Is(err, os.ErrNotExist) {
		return &Result{Seed: seed}, nil
	}
	r := &Result{}
	if err == nil {
		err = json.Unmarshal(raw, r)
	}
	if err == nil && r.Seed != seed {
		err = fmt.Errorf("%s was filled with the seed %d: use that one, or another directory", dir, r.Seed)
	}
	return r, err
}

// Run does what the package comment says. It returns what was found also when
// it ends early.
func Run(ctx context.Context, o Options) (*Result, error) {
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, err
	}
	res, err := load(o.Dir, o.Seed)
	if err != nil {
		return nil, err
	}
	c, err := start(ctx, &o)
	if err != nil {
		return res, err
	}
	r := &run{Options: o, cluster: c, result: res}
	defer func() { r.cluster.kill() }()
	if err := r.makeBucket(); err != nil {
		return res, err
	}
	for _, n := range o.Checkpoints {
		if err := r.reach(ctx, n); err != nil {
			return res, err
		}
	}
	o.Progress("kill -9 of every process of the cluster")
	c.kill()
	begin := time.Now()
	again, err := start(ctx, &o)
	if err != nil {
		return res, err
	}
	r.cluster, res.StartSeconds = again, time.Since(begin).Seconds()
	if err := r.count(ctx); err != nil {
		return res, err
	}
	again.stop()
	return res, res.save(o.Dir)
}

// run is a run under way.
type run struct {
	Options
	cluster *cluster
	result  *Result
}

// reach fills the bucket up to n keys and measures there, unless that was done
// before.
func (r *run) reach(ctx context.Context, n int) error {
	at := slices.IndexFunc(r.result.Checkpoints, func(c Checkpoint) bool { return c.Keys == n })
	if r.result.Filled > n || at >= 0 && len(r.result.Checkpoints[at].Kinds) > 0 {
		return nil
	}
	if at < 0 {
		at = len(r.result.Checkpoints)
		if err := r.fillTo(ctx, n); err != nil {
			return err
		}
	}
	point := r.result.Checkpoints[at]
	if err := r.measure(ctx, &point); err != nil {
		return err
	}
	var err error
	if point.MetaBytes, point.Replicas, err = r.cluster.metaBytes(); err != nil {
		return err
	}
	used, err := r.cluster.usage()
	if err != nil {
		return err
	}
	point.ResidentBytes = used.ResidentBytes
	r.result.Checkpoints[at] = point
	return r.result.save(r.Dir)
}

// fillTo fills the bucket up to n keys and appends a checkpoint with what that
// cost. A run that goes on later cannot measure it again, so it is saved here.
func (r *run) fillTo(ctx context.Context, n int) error {
	point := Checkpoint{Keys: n, Puts: n - r.result.Filled}
	before, err := r.cluster.usage()
	if err != nil {
		return err
	}
	self, err := measure.ProcessUsage(os.Getpid())
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := r.fill(ctx, n, &point); err != nil {
		return err
	}
	point.PutSeconds = time.Since(begin).Seconds()
	// What the fill left to compact is part of its cost.
	settled := r.settle(ctx)
	after, err := r.cluster.usage()
	if err != nil {
		return err
	}
	selfAfter, err := measure.ProcessUsage(os.Getpid())
	if err != nil {
		return err
	}
	point.PutServerCPU = (after.CPU - before.CPU).Seconds()
	point.PutClientCPU = (selfAfter.CPU - self.CPU).Seconds()
	r.result.Checkpoints = append(r.result.Checkpoints, point)
	return errors.Join(settled, r.result.save(r.Dir))
}
