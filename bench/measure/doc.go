// Package measure turns single observations into the figures of a benchmark:
// latency percentiles, throughput by the second, CPU time of processes.
//
// A Histogram keeps durations in buckets whose width grows with the value, so
// that a percentile is off by less than 1 % whatever the range, in a fixed 30 KiB
// and without an allocation per observation. A Timeline keeps bytes and
// operations by one-second window. Both belong to one goroutine; every worker
// of a benchmark has its own, and they are merged when the workers have ended,
// so that measuring takes no lock.
//
// CPU time comes from /proc/PID/stat and therefore in steps of 10 ms: measure
// for seconds, not for milliseconds.
package measure
