package store

import (
	"bytes"
	"context"
	"strings"

	"golang.org/x/sync/errgroup"

	"ashlar/daemon/meta"
	"ashlar/s3gw/store/row"
)

// An ordered walk over all slots of a bucket: each slot is a stream of rows in
// order, the streams are merged, and keys that share a prefix up to the
// delimiter become one entry. It is what listings of objects and of uploads
// have in common.

// entry is one line of a listing: a row under key, or a common prefix.
type entry struct {
	name   string      // the key, or the common prefix with its delimiter
	prefix bool        // it is a common prefix
	suffix string      // what follows the key's terminator in the row key
	row    *meta.Row   // nil for a common prefix
	object *row.Object // decoded, if the walk is one of current objects
}

// less is the order of a listing: by name, then by the row's suffix.
func (e entry) less(f entry) bool {
	if e.name != f.name {
		return e.name < f.name
	}
	return e.suffix < f.suffix
}

// walk says what is listed.
type walk struct {
	kind              byte // of the rows
	prefix, delimiter string
	// from is the first name that is wanted, as bytes of a row key after the
	// header; see after and at.
	from []byte
	// current says that only the first row of a key is wanted, and only if it
	// is no delete marker; otherwise every row is.
	current bool
	// pageRows is how many rows the first page of a slot asks for.
	pageRows int
}

// delimited returns the common prefix that key belongs to, if any.
func (w *walk) delimited(key string) (string, bool) {
	if w.delimiter == "" || !strings.HasPrefix(key, w.prefix) {
		return "", false
	}
	i := strings.Index(key[len(w.prefix):], w.delimiter)
	if i < 0 {
		return "", false
	}
	return key[:len(w.prefix)+i+len(w.delimiter)], true
}

// startAfter sets the walk to begin behind a key or a common prefix.
func (w *walk) startAfter(name string) {
	name = name[:min(len(name), row.KeyBytesMax)] // no key is longer, so nothing lies in between
	switch common, ok := w.delimited(name); {
	case name == "":
		w.from = nil
	case ok:
		w.from = row.Successor([]byte(common))
	default:
		// 0x01 is above the terminator and its suffixes, and not above any
		// longer key: keys hold no 0x00.
		w.from = append([]byte(name), 1)
	}
}

// stream is the part of a walk that lies in one slot.
type stream struct {
	w          *walk
	s          *Store
	sl         slot
	start, end []byte // of the next page; start is nil at the end
	rows       []meta.Row
	head       entry
	done       bool
	limit      int
	// collapsed says that the page shows only the first key of each common
	// prefix.
	collapsed bool
	// singly says that the next page must show every key.
	singly bool
}

func newStream(s *Store, sl slot, w *walk) *stream {
	header := sl.Header(w.kind)
	st := &stream{w: w, s: s, sl: sl, limit: w.pageRows}
	st.start = append(sl.Header(w.kind), w.prefix...)
	st.end = row.Successor(st.start)
	if from := append(header, w.from...); bytes.Compare(from, st.start) > 0 {
		st.start = from
	}
	if bytes.Compare(st.start, st.end) >= 0 {
		st.start = nil
	}
	return st
}

// next moves to the stream's next entry, or sets done.
func (st *stream) next(ctx context.Context) error {
	for {
		for len(st.rows) > 0 {
			r := st.rows[0]
			st.rows = st.rows[1:]
			e, err := st.entry(&r)
			if err != nil {
				return err
			}
			if e.prefix && st.head.prefix && e.name == st.head.name {
				continue
			}
			if e.object != nil && e.object.DeleteMarker {
				st.passMarker(&r, e.prefix)
				continue
			}
			st.head = e
			return nil
		}
		if st.start == nil {
			st.done = true
			return nil
		}
		if err := st.fetch(ctx); err != nil {
			return err
		}
	}
}

func (st *stream) entry(r *meta.Row) (entry, error) {
	key, suffix, ok := row.UserKey(r.Key)
	if !ok {
		return entry{}, invalid("row key %x has no terminator", r.Key)
	}
	e := entry{name: key, suffix: string(suffix), row: r}
	if common, ok := st.w.delimited(key); ok {
		e = entry{name: common, prefix: true}
	}
	if st.w.current {
		var err error
		e.object, err = decodeObject(r)
		return e, err
	}
	return e, nil
}

// passMarker goes on behind a key whose current version is a delete marker. A
// common prefix is not empty for that: where the page shows only the first key
// of it, the rest is read once more, key by key.
func (st *stream) passMarker(r *meta.Row, inPrefix bool) {
	if !inPrefix || !st.collapsed {
		return
	}
	end := row.HeaderBytes + bytes.IndexByte(r.Key[row.HeaderBytes:], 0)
	st.start, st.rows = append(bytes.Clone(r.Key[:end]), 1), nil
	st.singly = true
}

// fetch reads the next page. If the stream stands in a common prefix, it skips
// the rest of it with one seek.
func (st *stream) fetch(ctx context.Context) error {
	if st.head.prefix {
		skip := row.Successor(append(st.sl.Header(st.w.kind), st.head.name...))
		if bytes.Compare(skip, st.start) > 0 {
			st.start, st.singly = skip, false
		}
		if bytes.Compare(st.start, st.end) >= 0 {
			st.start = nil
			return nil
		}
	}
	req := meta.ScanRequest{Start: st.start, End: st.end, Limit: st.limit}
	if st.w.current {
		req.Collapse = append(req.Collapse, meta.Collapse{Delim: []byte{0}, From: row.HeaderBytes})
		if st.collapsed = st.w.delimiter != "" && !st.singly; st.collapsed {
			from := row.HeaderBytes + len(st.w.prefix)
			req.Collapse = append(req.Collapse, meta.Collapse{Delim: []byte(st.w.delimiter), From: from})
		}
	}
	page, err := st.s.scan(ctx, st.sl.shard, req)
	if err != nil {
		return err
	}
	st.rows, st.start = page.Rows, page.Next
	return nil
}

// list merges the slots of a bucket. It calls emit for every entry in order
// until emit returns false or there are no more.
func (s *Store) list(ctx context.Context, b *bucket, w *walk, emit func(entry) bool) error {
	slots := b.slots()
	streams := make([]*stream, len(slots))
	group, groupCtx := errgroup.WithContext(ctx)
	for i, sl := range slots {
		streams[i] = newStream(s, sl, w)
		group.Go(func() error { return streams[i].next(groupCtx) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	last := entry{}
	for {
		var least *stream
		for _, st := range streams {
			if !st.done && (least == nil || st.head.less(least.head)) {
				least = st
			}
		}
		if least == nil {
			return nil
		}
		// A common prefix usually turns up in every slot.
		if e := least.head; !e.prefix || !last.prefix || e.name != last.name {
			if !emit(e) {
				return nil
			}
			last = e
		}
		if err := least.next(ctx); err != nil {
			return err
		}
	}
}
