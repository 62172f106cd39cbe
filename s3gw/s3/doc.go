// Package s3 is the S3 protocol without a server: the closed list of error
// codes, the XML that goes out and comes in, names, headers and checksums.
//
// Everything here is a pure function of its arguments. Input is judged
// strictly: what cannot be understood is refused with the code that AWS gives,
// never guessed at. Names are parsed once into Bucket and Key and travel as
// those types, so that a name that was not judged cannot reach the store; a Key
// is opaque bytes and is never cleaned, joined or made into a path.
//
// XML is written by appending to a byte slice, because a listing of a thousand
// keys should not cost a thousand reflections; it is read into a small tree
// that refuses DTDs, entities, depth and junk.
//
// The one table that turns an error of any room below into an answer is in
// classify.go.
package s3
