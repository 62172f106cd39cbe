package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

const (
	dialTimeout = 10 * time.Second
	again       = 100 * time.Millisecond // between the end of a connection and the next
	drip        = time.Second            // between two bytes of the slow
	ramp        = 10 * time.Second       // over which the connections of a kind come
)

// session is one connection and what it may sign with.
type session struct {
	net.Conn
	o      options
	host   string
	bucket string
}

// kinds lists the ways, with their shares of the connections.
func kinds(host, bucket string, o options) []*kind {
	third, each := o.slow/3, o.rude/3
	list := []*kind{
		{name: "idle", count: o.idle, act: idle},
		{name: "slow header", count: o.slow - 2*third, act: slowHeader},
		{name: "slow body", count: third, act: slowBody},
		{name: "slow reader", count: third, act: slowReader},
		{name: "header without end", count: o.rude - 2*each, act: endlessHeader},
		{name: "chunks without end", count: each, act: endlessChunks},
		{name: "silent after 100-continue", count: each, act: silentContinue},
	}
	for _, k := range list {
		k.host = host
		act := k.act
		k.act = func(ctx context.Context, c *session) error {
			c.o, c.host, c.bucket = o, host, bucket
			return act(ctx, c)
		}
	}
	return list
}

// start makes the connections and makes them again until ctx ends.
func (k *kind) start(ctx context.Context, wg *sync.WaitGroup) {
	for i := range k.count {
		wg.Go(func() {
			pause(ctx, time.Duration(i)*ramp/time.Duration(k.count))
			for first := true; ctx.Err() == nil; {
				d := net.Dialer{Timeout: dialTimeout}
				conn, err := d.DialContext(ctx, "tcp", k.host)
				if err != nil {
					pause(ctx, again)
					continue
				}
				if first {
					k.opened.Add(1)
					first = false
				}
				k.use(ctx, conn)
				pause(ctx, again)
			}
		})
	}
}

// use runs one connection to its end and notes what the server said.
func (k *kind) use(ctx context.Context, conn net.Conn) {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	defer conn.Close()
	err := k.act(ctx, &session{Conn: conn})
	if ctx.Err() != nil {
		return
	}
	k.ended.Add(1)
	var status answered
	if errors.As(err, &status) {
		k.answers.add(string(status))
	}
}

// answered is the error of a connection on which the server spoke.
type answered string

func (a answered) Error() string { return string(a) }

// listen waits for the server's word, or for the end of the connection.
func (c *session) listen() error {
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return err
	}
	return answered(resp.Status)
}

// hear listens beside what goes on; the channel gets one error.
func (c *session) hear() <-chan error {
	heard := make(chan error, 1)
	go func() { heard <- c.listen() }() // ends with the connection
	return heard
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// dripping sends text a byte at a time until the server ends it.
func (c *session) dripping(ctx context.Context, next func(i int) byte) error {
	heard := c.hear()
	for i := 0; ; i++ {
		if _, err := c.Write([]byte{next(i)}); err != nil {
			select {
			case err = <-heard:
			case <-time.After(drip):
			}
			return err
		}
		select {
		case err := <-heard:
			return err
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(drip):
		}
	}
}

func idle(_ context.Context, c *session) error { return c.listen() }

func slowHeader(ctx context.Context, c *session) error {
	text := "GET / HTTP/1.1\r\nHost: " + c.host + "\r\nX-Slow: "
	return c.dripping(ctx, func(i int) byte {
		if i < len(text) {
			return text[i]
		}
		return 'a'
	})
}

func slowBody(ctx context.Context, c *session) error {
	if err := c.head("PUT", "slow", "UNSIGNED-PAYLOAD", "Content-Length", fmt.Sprint(largeBytes)); err != nil {
		return err
	}
	return c.dripping(ctx, func(int) byte { return 'x' })
}

func slowReader(ctx context.Context, c *session) error {
	if err := c.head("GET", "large", "UNSIGNED-PAYLOAD"); err != nil {
		return err
	}
	var first [1]byte
	if _, err := io.ReadFull(c, first[:]); err != nil {
		return err
	}
	<-ctx.Done() // the server gives up, or we do
	return ctx.Err()
}

func endlessHeader(_ context.Context, c *session) error {
	heard := c.hear()
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: "+c.host+"\r\n"); err != nil {
		return err
	}
	line := "X-Filler: " + strings.Repeat("a", 1000) + "\r\n"
	for {
		if _, err := io.WriteString(c, line); err != nil {
			return lastWord(heard, err)
		}
	}
}

func endlessChunks(_ context.Context, c *session) error {
	heard := c.hear()
	err := c.head("PUT", "slow", "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "Transfer-Encoding", "chunked",
		"Content-Encoding", "aws-chunked", "X-Amz-Decoded-Content-Length", "1", "X-Amz-Trailer", "x-amz-checksum-crc32")
	if err != nil {
		return err
	}
	for {
		// One HTTP chunk that holds a part of a chunk of S3's, whose extension never ends.
		if _, err := io.WriteString(c, "400\r\n"+strings.Repeat("0", 1024)+"\r\n"); err != nil {
			return lastWord(heard, err)
		}
	}
}

func silentContinue(_ context.Context, c *session) error {
	if err := c.head("PUT", "slow", "UNSIGNED-PAYLOAD", "Content-Length", "1000", "Expect", "100-continue"); err != nil {
		return err
	}
	r := bufio.NewReader(c)
	for {
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			return err
		}
		if resp.StatusCode != http.StatusContinue {
			return answered(resp.Status)
		}
	}
}

// lastWord prefers what the server said to the error of our writing.
func lastWord(heard <-chan error, err error) error {
	select {
	case said := <-heard:
		return said
	case <-time.After(drip):
		return err
	}
}

// head sends the signed head of a request; extra are names and values.
func (c *session) head(method, key, payload string, extra ...string) error {
	r, err := http.NewRequest(method, "http://"+c.host+"/"+c.bucket+"/"+key, nil)
	if err != nil {
		return err
	}
	r.Header.Set("X-Amz-Content-Sha256", payload)
	unsigned := map[string]string{}
	for i := 0; i < len(extra); i += 2 {
		if strings.HasPrefix(extra[i], "X-Amz-") {
			r.Header.Set(extra[i], extra[i+1])
		} else {
			unsigned[extra[i]] = extra[i+1]
		}
	}
	cred := aws.Credentials{AccessKeyID: c.o.accessKey, SecretAccessKey: c.o.secretKey}
	if err := v4.NewSigner().SignHTTP(context.Background(), cred, r, payload, "s3", region, time.Now()); err != nil {
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", method, r.URL.Path, c.host)
	for name, values := range r.Header {
		fmt.Fprintf(&b, "%s: %s\r\n", name, values[0])
	}
	for name, value := range unsigned {
		fmt.Fprintf(&b, "%s: %s\r\n", name, value)
	}
	b.WriteString("\r\n")
	_, err = io.WriteString(c, b.String())
	return err
}
