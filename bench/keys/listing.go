package keys

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/zeebo/xxh3"

	"ashlar/bench/measure"
	"ashlar/bench/s3"
)

// The kinds of listings that are measured.
const (
	kindPage = "1,000 keys behind a random key"
	kindRoot = "delimiter at the root"
	kindDirs = "delimiter in a random directory"
)

// queryOf returns the query of a listing of a kind, and how many entries its
// answer has at least.
func (r *run) queryOf(kind string, rng *rand.Rand, keys int) (query string, least int) {
	switch kind {
	case kindRoot:
		return delimited, 1
	case kindDirs:
		if rng.IntN(2) == 0 {
			return listTeam(rng.IntN(teams)), 0
		}
		return listProject(rng.IntN(teams), rng.IntN(projects)), 0
	default:
		after := appendKey(nil, r.Seed, rng.IntN(keys))
		return "list-type=2&max-keys=1000&start-after=" + s3.Escape(string(after), false), 0
	}
}

const delimited = "delimiter=%2F&list-type=2&max-keys=1000&prefix="

func listTeam(team int) string { return delimited + s3.Escape(string(appendTeam(nil, team)), false) }

func listProject(team, project int) string {
	return delimited + s3.Escape(string(append(appendProject(nil, team, project), "2026/"...)), false)
}

// warmUp returns the listings of a kind that come first and are not measured: of
// directories each one once, so that what is measured does not depend on how many were
// listed before, of other kinds a tenth as many as are measured.
func (r *run) warmUp(kind string, rng *rand.Rand, keys int) (queries []string) {
	if kind == kindDirs {
		for team := range teams {
			queries = append(queries, listTeam(team))
			for project := range projects {
				queries = append(queries, listProject(team, project))
			}
		}
		return queries
	}
	for range r.Listings / warmShare {
		query, _ := r.queryOf(kind, rng, keys)
		queries = append(queries, query)
	}
	return queries
}

// measure lists, one request after the other.
func (r *run) measure(ctx context.Context, point *Checkpoint) error {
	c, err := r.cluster.client()
	if err != nil {
		return err
	}
	defer c.Close()
	rng := rand.New(rand.NewPCG(r.Seed, uint64(point.Keys)))
	for _, name := range []string{kindPage, kindRoot, kindDirs} {
		r.Progress(fmt.Sprintf("%d listings: %s", r.Listings, name))
		kind, err := r.measureKind(ctx, c, rng, name, point.Keys)
		if err != nil {
			return err
		}
		point.Kinds = append(point.Kinds, kind)
	}
	return nil
}

// warmShare of the listings of most kinds come first; see warmUp.
const warmShare = 10

func (r *run) measureKind(ctx context.Context, c *s3.Client, rng *rand.Rand, name string, keys int) (Kind, error) {
	var h measure.Histogram
	entries := 0
	for _, query := range r.warmUp(name, rng, keys) {
		if _, err := list(ctx, c, query, 0); err != nil {
			return Kind{}, err
		}
	}
	before, err := r.cluster.usage()
	if err != nil {
		return Kind{}, err
	}
	for range r.Listings {
		query, least := r.queryOf(name, rng, keys)
		begin := time.Now()
		n, err := list(ctx, c, query, least)
		if err != nil {
			return Kind{}, err
		}
		h.Add(time.Since(begin))
		entries += n
	}
	after, err := r.cluster.usage()
	n := float64(r.Listings)
	return Kind{
		Name: name, Count: r.Listings, Entries: float64(entries) / n, P50: h.Quantile(0.5), P99: h.Quantile(0.99),
		ServerCPU: time.Duration(float64(after.CPU-before.CPU) / n),
	}, err
}

// list lists once and returns the number of entries.
func list(ctx context.Context, c *s3.Client, query string, least int) (entries int, err error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	doc, err := c.Do("GET", "/"+bucket, query)
	if err != nil {
		return 0, fmt.Errorf("listing %s: %w", query, err)
	}
	entries = bytes.Count(doc, []byte("<Key>")) + bytes.Count(doc, []byte("<CommonPrefixes>"))
	if entries < least {
		return 0, fmt.Errorf("listing %s: %d entries, want at least %d", query, entries, least)
	}
	return entries, nil
}

// tally is what a listing of many keys adds up to: it is the same for the same
// set of keys.
type tally struct {
	keys int
	sum  uint64
}

func (t *tally) add(key []byte) {
	t.keys++
	t.sum += xxh3.Hash(key)
}

// countersMax is how many directories are listed at once.
const countersMax = 4

// count lists the whole bucket and compares it with what was acknowledged.
func (r *run) count(ctx context.Context) error {
	r.Progress("listing every key")
	begin := time.Now()
	var want, got tally
	var key []byte
	for i := range r.result.Filled {
		key = appendKey(key[:0], r.Seed, i)
		want.add(key)
	}
	found := make([]tally, teams)
	failed := make([]error, teams)
	slots := make(chan struct{}, countersMax)
	var all sync.WaitGroup
	for team := range teams {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			found[team], failed[team] = r.countTeam(ctx, team)
		})
	}
	all.Wait()
	if err := errors.Join(failed...); err != nil {
		return err
	}
	for _, t := range found {
		got.keys += t.keys
		got.sum += t.sum
	}
	r.result.Counted, r.result.CountSeconds = got.keys, time.Since(begin).Seconds()
	if got != want {
		return fmt.Errorf("the bucket lists %d keys (sum %016x), %d were acknowledged (sum %016x)", got.keys, got.sum, want.keys, want.sum)
	}
	return nil
}

func (r *run) countTeam(ctx context.Context, team int) (t tally, err error) {
	c, err := r.cluster.client()
	if err != nil {
		return t, err
	}
	defer c.Close()
	query := "list-type=2&max-keys=1000&prefix=" + s3.Escape(string(appendTeam(nil, team)), false)
	var last []byte
	for token := ""; ; {
		if err := ctx.Err(); err != nil {
			return t, err
		}
		page := query
		if token != "" {
			page = "continuation-token=" + s3.Escape(token, false) + "&" + query
		}
		doc, err := c.Do("GET", "/"+bucket, page)
		if err != nil {
			return t, err
		}
		for rest := doc; ; {
			key, after, ok := element(rest, "Key")
			if !ok {
				break
			}
			if bytes.Compare(key, last) <= 0 {
				return t, fmt.Errorf("%q is listed behind %q", key, last)
			}
			last = append(last[:0], key...)
			t.add(key)
			rest = after
		}
		next, _, ok := element(doc, "NextContinuationToken")
		if !ok {
			return t, nil
		}
		token = string(next)
	}
}

// element returns the text of the first element of a name, which holds nothing
// that XML escapes, and what follows it.
func element(doc []byte, name string) (text, after []byte, ok bool) {
	_, rest, ok := bytes.Cut(doc, []byte("<"+name+">"))
	if !ok {
		return nil, nil, false
	}
	return bytes.Cut(rest, []byte("</"+name+">"))
}
