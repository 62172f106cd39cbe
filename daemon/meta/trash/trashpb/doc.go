// Package trashpb is the protobuf message of a trash row.
//
// It is generated from ../trash.proto and committed. Only daemon/meta/trash
// uses it; everybody else speaks of trash.Entry. The format document is the
// comment of that package. To change the message, edit trash.proto by its
// rules and run go generate here.
package trashpb

//go:generate sh -c "cd ../../../.. && protoc --plugin=protoc-gen-go=$(go tool -n protoc-gen-go) --go_out=. --go_opt=module=ashlar daemon/meta/trash/trash.proto"
