// Command hostile keeps an endpoint busy with clients that mean no good and says
// what that does to a healthy one and to the server's memory.
//
//	go run ./tools/hostile -endpoint URL -access-key K -secret-key S [-server-pid PID] [-idle 10000] [-slow 1000] [-duration 30s]
//
// A healthy client puts and gets objects of 4 KiB and 1 MiB, alone first and then while
//
//	idle     connections are open and send nothing
//	slow     connections, an equal share of each, send their header a byte a
//	         second, or the body of an upload a byte a second, or take no byte of
//	         a large answer
//	rude     a few connections, again and again, send headers without end, chunks
//	         without end, or ask for 100 Continue and fall silent
//
// A connection that the server ends is made again: the pressure stays. The table
// gives the healthy client's requests, failures and latencies in both stretches,
// how often the server ended which kind, and the server's resident memory. The
// exit status is 1 if a healthy request failed, or the memory grew by more than
// -memory.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	var o options
	flag.StringVar(&o.endpoint, "endpoint", "", "`URL` of the S3 endpoint, http only")
	flag.StringVar(&o.accessKey, "access-key", os.Getenv("ASHLAR_ACCESS_KEY"), "access key")
	flag.StringVar(&o.secretKey, "secret-key", os.Getenv("ASHLAR_SECRET_KEY"), "secret key")
	flag.IntVar(&o.serverPID, "server-pid", 0, "process whose memory is watched; 0: none")
	flag.IntVar(&o.idle, "idle", 10_000, "connections that send nothing")
	flag.IntVar(&o.slow, "slow", 1000, "connections that are slow")
	flag.IntVar(&o.rude, "rude", 16, "connections that never come to an end")
	flag.DurationVar(&o.duration, "duration", 30*time.Second, "how long each stretch is measured")
	flag.Int64Var(&o.memoryBytes, "memory", 512<<20, "growth of the server's memory, in bytes, that is a failure")
	flag.Parse()
	if o.endpoint == "" || o.accessKey == "" || o.secretKey == "" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	r, err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "hostile:", err)
		os.Exit(1)
	}
	r.print(os.Stdout)
	wrong := r.verdict(o)
	for _, w := range wrong {
		fmt.Println("FAILED", w)
	}
	if len(wrong) > 0 {
		os.Exit(1)
	}
}
