// Package probe looks at devices without changing them: which there are, what
// the machine says of each, and what somebody else has put on it.
//
// Devices reads sysfs, the mount table, the swap list and, where udev keeps
// one, its database, through an fs.FS rooted at "/": tests hand it a fixture
// tree. It opens no device.
//
// Signatures reads a device and names every foreign thing that it finds. Two
// parties look, and what either sees counts: blkid of util-linux, which knows
// hundreds of formats, where it is installed; and a check of our own for those
// that are met on servers, which needs no program, works on the partitions of
// a device through the device itself, and still names a signature whose
// remains blkid finds too damaged to vouch for. Neither can prove a device
// empty; consent to lose data is the operator's to give, by serial number.
//
// Ashlar's own label is not a signature here: label.Read finds it.
package probe
