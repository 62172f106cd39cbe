#!/bin/sh
# Makes shardspb from shards.proto with Debian's protobuf-compiler and the
# plugins that go.mod pins. Run by go generate.
set -eu
bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
go build -o "$bin" google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc
PATH="$bin:$PATH" protoc -I . \
	--go_out=shardspb --go_opt=paths=source_relative \
	--go-grpc_out=shardspb --go-grpc_opt=paths=source_relative \
	shards.proto
