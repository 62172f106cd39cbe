// Package smart knows what a disk says of itself: the six numbers that decide,
// its own verdict, and where the one who may ask leaves them for those who may not.
//
// Asking needs a capability (CAP_SYS_RAWIO, and CAP_SYS_ADMIN for NVMe) that the
// daemon does not have. `ashlar smart`, started by ashlar-smart.timer, has it: it
// runs smartctl for every claimed disk and writes one file for each to
// /run/ashlar/smart. The daemon and `ashlar disk list` read these files; one that
// is missing, unreadable or older than MaxAge says nothing.
//
//	smartctl --json ──► Parse ──► Facts ──► Write ──► /run/ashlar/smart/SERIAL.json ──► Read
//
// A file is one JSON object, replaced as a whole: version 1, the fields of Facts.
// Fields are only ever added; a reader passes over those that it does not know,
// and over files of another version.
package smart
