package s3

import (
	"errors"
	"time"
)

// clientBytes is what a Client reads at a time: thousands of them may exist.
const clientBytes = headBytesMax

// Client is one signed connection for benchmarks that bring a workload of their
// own. One goroutine uses it, and it sends nothing again by itself.
type Client struct{ c conn }

// NewClient returns a client of an endpoint ("http://host:port"), which it dials
// at the first request.
func NewClient(endpointURL, accessKey, secretKey, region string, timeout time.Duration) (*Client, error) {
	to, err := parseEndpoint(endpointURL, nil)
	if err != nil {
		return nil, err
	}
	c := &Client{}
	c.c = conn{to: to, sign: newSigner(accessKey, secretKey, region), timeout: timeout, inBytes: clientBytes}
	return c, nil
}

// Do sends a request without a body and returns that of the answer. The path
// and the query must be escaped, the query's parameters in order. An answer that
// is no success is an error that Status tells apart.
func (c *Client) Do(method, path, query string) (body []byte, err error) {
	a, err := c.c.send(&request{method: method, path: path, query: query}, time.Now())
	if err != nil {
		return nil, err
	}
	return c.c.finish(a, listBytesMax)
}

// Close drops the connection.
func (c *Client) Close() { c.c.drop() }

// Status is the HTTP status in an error of Do, zero if there was no answer.
func Status(err error) int {
	var bad *statusError
	if errors.As(err, &bad) {
		return bad.status
	}
	return 0
}

// Escape writes text as a path or a query takes it.
func Escape(text string, keepSlash bool) string { return escape(text, keepSlash) }
