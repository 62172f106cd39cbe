// Package shardspb is generated from daemon/wire/shards.proto: the messages and
// the gRPC service that carry wire.Shards between processes.
//
// Nobody but package wire uses it. The meaning of every field, who owns a
// slice and which errors exist is said in daemon/wire/shards.go; run
// "go generate ./daemon/wire" after a change of the proto file. Field numbers
// travel between versions: never reuse one.
package shardspb
