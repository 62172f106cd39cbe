package sigv4

import (
	"encoding/hex"

	"ashlar/s3gw/s3"
)

const (
	unsignedPayload       = "UNSIGNED-PAYLOAD"
	streamSigned          = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
	streamSignedTrailer   = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
	streamUnsignedTrailer = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
	streamECDSA           = "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD"
	streamECDSATrailer    = "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD-TRAILER"
)

type payloadKind uint8

const (
	kindUnsigned payloadKind = iota
	kindHashed
	kindChunksSigned
	kindChunksSignedTrailer
	kindChunksUnsignedTrailer
)

// Payload says how the body of a verified request is framed and vouched for.
type Payload struct {
	kind payloadKind
	// SHA256 is what the body must hash to, if Hashed.
	SHA256 [32]byte

	key                *signingKey
	stamp, scope, seed string
}

// Hashed reports whether the body must hash to SHA256.
func (p *Payload) Hashed() bool { return p.kind == kindHashed }

// Chunked reports whether the body is in aws-chunked framing.
func (p *Payload) Chunked() bool { return p.kind >= kindChunksSigned }

// Signed reports whether every chunk carries a signature.
func (p *Payload) Signed() bool {
	return p.kind == kindChunksSigned || p.kind == kindChunksSignedTrailer
}

// Trailer reports whether trailers follow the last chunk.
func (p *Payload) Trailer() bool {
	return p.kind == kindChunksSignedTrailer || p.kind == kindChunksUnsignedTrailer
}

// parsePayload reads the value of x-amz-content-sha256.
func parsePayload(s string) (p Payload, err error) {
	switch s {
	case unsignedPayload:
	case streamSigned:
		p.kind = kindChunksSigned
	case streamSignedTrailer:
		p.kind = kindChunksSignedTrailer
	case streamUnsignedTrailer:
		p.kind = kindChunksUnsignedTrailer
	case streamECDSA, streamECDSATrailer:
		return p, s3.E(s3.NotImplemented, "Signature Version 4A is not implemented.")
	default:
		p.kind = kindHashed
		if n, err := hex.Decode(p.SHA256[:], []byte(s[:min(len(s), 64)])); err != nil || n != 32 || len(s) != 64 {
			return p, s3.E(s3.InvalidArgument, "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, "+streamUnsignedTrailer+", "+
				streamSigned+", "+streamSignedTrailer+", "+streamECDSA+", "+streamECDSATrailer+" or a valid sha256 value.").
				With("ArgumentName", "x-amz-content-sha256").With("ArgumentValue", s)
		}
	}
	return p, nil
}
