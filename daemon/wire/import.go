package wire

import (
	"context"

	"google.golang.org/grpc/metadata"

	"ashlar"
)

// importHeader carries the name of a restore's run with the calls of its import.
const importHeader = "ashlar-import-bin"

type importKey struct{}

// WithImport marks calls of Shards as those of the import that brings the rows
// of a backup back in the named run.
func WithImport(ctx context.Context, run ashlar.ID) context.Context {
	return metadata.AppendToOutgoingContext(context.WithValue(ctx, importKey{}, run), importHeader, string(run[:]))
}

// ImportOf returns the run that a call imports for, zero for an ordinary one.
func ImportOf(ctx context.Context) (run ashlar.ID) {
	if run, ok := ctx.Value(importKey{}).(ashlar.ID); ok {
		return run
	}
	if v := metadata.ValueFromIncomingContext(ctx, importHeader); len(v) == 1 && len(v[0]) == len(run) {
		copy(run[:], v[0])
	}
	return run
}
