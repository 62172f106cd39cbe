package replica

import "sync"

// queue hands items from many goroutines to one, which takes all that are
// there at once: that is how work becomes batches. Who puts items keeps their
// number bounded.
type queue[T any] struct {
	// wake has room for one token; a token means that there may be items.
	wake chan struct{}
	mu   struct {
		sync.Mutex
		items []T
	}
}

func newQueue[T any]() *queue[T] { return &queue[T]{wake: make(chan struct{}, 1)} }

// put appends items unless that would make the queue longer than lenMax; zero
// is no bound.
func (q *queue[T]) put(lenMax int, items ...T) bool {
	if len(items) == 0 {
		return true
	}
	q.mu.Lock()
	if lenMax > 0 && len(q.mu.items)+len(items) > lenMax {
		q.mu.Unlock()
		return false
	}
	q.mu.items = append(q.mu.items, items...)
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
	return true
}

// take returns what was put since the last call. Spare, which may be nil, is
// an old slice to be filled next.
func (q *queue[T]) take(spare []T) []T {
	clear(spare)
	q.mu.Lock()
	defer q.mu.Unlock()
	items := q.mu.items
	q.mu.items = spare[:0]
	return items
}
