// Package acceptance knows which tests of other projects are kept for acceptance.
//
// Whoever builds Ashlar neither runs nor reads them, so that the gateway is not
// made for the tests that judge it. The rule is the same for every suite and looks
// at nothing but a test's name. The runners of the suites ask here: tools/s3suite
// for ceph/s3-tests, tools/withhold for versitygw, tools/mint for minio/mint, mc and
// minio-go. What is kept of a Go file is cut out of it by WithoutTests.
package acceptance

import (
	"crypto/sha1"
	"math/big"
)

// Keeps reports whether the test of that name is kept: the SHA-1 of the name, read
// as a number, is divisible by 3.
func Keeps(name string) bool {
	sum := sha1.Sum([]byte(name))
	n := new(big.Int).SetBytes(sum[:])
	return n.Mod(n, big.NewInt(3)).Sign() == 0
}
