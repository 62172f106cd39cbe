package wire

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"ashlar"
)

// Pieces and Stripes travel over HTTP/1.1. Every call is
//
//	POST /bytes/1/<call>
//	u32 length of the request | the request | payload
//
// all numbers little-endian. The request is the call's arguments in the compact
// form of bytes_codec.go. A piece's payload is its raw bytes; with it go their
// length and CRC-32C, which the receiver verifies before it uses them. The
// bodies of write-stripes and read-stripes are cut into frames, each verified
// before a byte of it is handed on:
//
//	u32 length (1 … frameBytesMax) | u32 CRC-32C of the payload | payload
//	u32 0                          | u32 0                        the end
//	u32 failure + length           | u32 CRC-32C                | u8 kind, text
//
// A stream without its end frame was cut off. An answer other than 200 carries
// its kind in the header kindHeader and its text in the body.
const (
	bytesPath  = "/bytes/1/"
	kindHeader = "Ashlar-Kind"
	sumHeader  = "Ashlar-Crc32c"
	// requestHeader carries the request of write-stripes in base64, so that the
	// host can refuse it before the body is asked for.
	requestHeader = "Ashlar-Request"

	callPut    = "put-piece"
	callGet    = "get-piece"
	callTell   = "describe-piece"
	callDelete = "delete-piece"
	callHas    = "has-pieces"
	callWrite  = "write-stripes"
	callRead   = "read-stripes"
	callDrop   = "delete-stripes"
)

// Bounds of what is sent and accepted.
const (
	// PieceBytesMax is the longest piece or range of a piece.
	PieceBytesMax = 64 * ashlar.MiB
	// HasPiecesMax is the most ids that one HasPieces may ask for.
	HasPiecesMax = 100_000
	// requestBytesMax bounds the encoded request: 10,000 extents, or the ids above.
	requestBytesMax = 4 * ashlar.MiB
	frameBytesMax   = 256 * ashlar.KiB
	frameBytes      = 64 * ashlar.KiB // what we cut streams into
	frameHeader     = 8
	failure         = 1 << 31
	textBytesMax    = 4 * ashlar.KiB
)

// Deadlines. A caller's earlier one holds.
const (
	callMax  = time.Minute // of a call without a stream whose context has none
	stallMax = time.Minute // without a byte moving in a stream
	// takeMax is how long a caller may take no frame of what it reads. It opens the
	// rest anew when it wants it; the host's memory is not for waiting.
	takeMax = 2 * time.Second
	dialMax = 2 * time.Second  // to connect
	headMax = 10 * time.Second // for a request's header to arrive
	idleMax = 90 * time.Second // of a connection nobody uses
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func sumOf(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

var (
	errSum  = errors.New("the bytes changed on the way: their sum differs")
	errTorn = errors.New("the stream was cut off")
)

// statusOf is the HTTP status of a kind, for people and proxies: between our
// processes the kind itself decides.
func statusOf(kind ashlar.Kind) int {
	switch kind {
	case ashlar.NotFound:
		return http.StatusNotFound
	case ashlar.Exists, ashlar.Stale:
		return http.StatusConflict
	case ashlar.Full:
		return http.StatusInsufficientStorage
	case ashlar.Busy, ashlar.Unavailable:
		return http.StatusServiceUnavailable
	case ashlar.Denied:
		return http.StatusForbidden
	case ashlar.Invalid:
		return http.StatusBadRequest
	}
	return http.StatusInternalServerError
}

// writeError answers with an error.
func writeError(w http.ResponseWriter, err error) {
	kind, text := ashlar.KindOf(err), err.Error()
	text = text[:min(len(text), textBytesMax)]
	h := w.Header()
	h.Set(kindHeader, strconv.Itoa(int(kind)))
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(statusOf(kind))
	_, _ = io.WriteString(w, text) // a caller that is gone needs no answer
}

// readError turns an answer other than 200 into the error that it carries.
func readError(op, host string, r *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(r.Body, textBytesMax)) // what came is what we can tell
	kind, err := strconv.ParseUint(r.Header.Get(kindHeader), 10, 8)
	if err != nil {
		return ashlar.E(op, "host="+host, ashlar.Internal, fmt.Errorf("HTTP status %s", r.Status))
	}
	return ashlar.E(op, "host="+host, ashlar.Kind(kind), errors.New(strings.TrimSpace(string(text))))
}
