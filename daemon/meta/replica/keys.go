package replica

import (
	"encoding/binary"
	"fmt"

	"ashlar"
)

// Kinds of Pebble keys; see the table in the package comment.
const (
	kindFormat  = 0x00
	kindBorn    = 'b'
	kindHard    = 'h'
	kindHeard   = 'k'
	kindLog     = 'l'
	kindLost    = 'x'
	kindMachine = 's'
	kindTrunc   = 't'
	kindApplied = 'a'
)

// Parts of a state machine's rows, after the generation.
const (
	partAnswers = 'd'
	partRows    = 'r'
)

// formatVersion is the version of everything below; another one is refused.
const formatVersion = 1

const (
	prefixBytes  = 1 + 8                     // kind, replica
	machineBytes = prefixBytes + 4           // generation
	rowBytes     = machineBytes + 1          // part
	answerBytes  = machineBytes + 1 + 8 + 16 // part, dedupe generation, request id
)

func appendPrefix(b []byte, kind byte, id ashlar.ReplicaID) []byte {
	return binary.BigEndian.AppendUint64(append(b, kind), uint64(id))
}

func replicaKey(kind byte, id ashlar.ReplicaID) []byte {
	return appendPrefix(make([]byte, 0, prefixBytes), kind, id)
}

func heardKey(id, peer ashlar.ReplicaID) []byte {
	return binary.BigEndian.AppendUint64(replicaKey(kindHeard, id), uint64(peer))
}

func logKey(id ashlar.ReplicaID, index uint64) []byte {
	return binary.BigEndian.AppendUint64(appendPrefix(make([]byte, 0, prefixBytes+8), kindLog, id), index)
}

// machinePrefix is the prefix of everything a state machine holds in one generation.
func machinePrefix(id ashlar.ReplicaID, generation uint32) []byte {
	return binary.BigEndian.AppendUint32(appendPrefix(make([]byte, 0, rowBytes+64), kindMachine, id), generation)
}

// successor returns the least key that is greater than every key with the
// prefix, or nil if there is none.
func successor(prefix []byte) []byte {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] != 0xff {
			s := append([]byte{}, prefix[:i+1]...)
			s[i]++
			return s
		}
	}
	return nil
}

// errCorrupt is a row of ours that does not decode.
func errCorrupt(what string, id ashlar.ReplicaID) error {
	return ashlar.E("meta: decode", fmt.Sprintf("%s replica=%d", what, id), ashlar.Corrupt, nil)
}
