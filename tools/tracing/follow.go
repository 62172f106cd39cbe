// Package tracing is what `ashlar trace` does: it reads the live traces of gateways,
// all at once, and prints what they tell.
//
// It asks as any client could: GET /?x-ashlar-trace, signed with the keys of whoever
// runs the command, who needs the right for it. A gateway that goes away is asked
// again until it is back; what it served meanwhile is not told. A reader that is slow
// makes the gateways drop events, never wait, and is told how many.
package tracing

import (
	"bufio"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"ashlar/s3gw/trace"
)

const (
	// connectMax bounds the wait for a gateway's answer, silenceMax that for a line:
	// a gateway gives a sign of life every 5 s.
	connectMax = 10 * time.Second
	silenceMax = 20 * time.Second
	// retryEvery is the pause before a gateway is asked again.
	retryEvery = time.Second
	// lineBytesMax bounds one event.
	lineBytesMax = 1 << 20

	emptySHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
)

// Keys are those that requests are signed with.
type Keys struct{ AccessKey, SecretKey, Token, Region string }

// Options say what is followed.
type Options struct {
	// Gateways are URLs of gateways.
	Gateways []string
	Keys     Keys
	Filter   trace.Filter
	// Note is told when a gateway cannot be reached, and when it is back; it may be
	// called by several goroutines. Nil drops that.
	Note func(string)
}

// Follow calls each with the events of all gateways, one after the other, until ctx
// ends, each returns an error, or a gateway refuses. It is an error, too, if none of
// the gateways can be reached at the beginning.
func Follow(ctx context.Context, o Options, each func(*trace.Event) error) error {
	if len(o.Gateways) == 0 {
		return errors.New("no gateway to follow")
	}
	if o.Note == nil {
		o.Note = func(string) {}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	f := &follower{o: o, events: make(chan *trace.Event), begun: make(chan error, len(o.Gateways)), http: newHTTP()}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer f.http.CloseIdleConnections()
	defer cancel(nil)
	for _, g := range o.Gateways {
		wg.Go(func() {
			if err := f.follow(ctx, g); err != nil {
				cancel(err)
			}
		})
	}
	var away []error
	for {
		select {
		case e := <-f.events:
			if err := each(e); err != nil {
				return err
			}
		case err := <-f.begun:
			if err != nil {
				away = append(away, err)
			}
			if len(away) == len(o.Gateways) {
				return errors.Join(away...)
			}
			if err != nil {
				o.Note(again(err))
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func newHTTP() *http.Client {
	return &http.Client{
		Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, ResponseHeaderTimeout: connectMax, TLSHandshakeTimeout: connectMax},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

type follower struct {
	o      Options
	http   *http.Client
	events chan *trace.Event
	begun  chan error // one value for each gateway: how its first call went
}

// refusal is an answer that asking again does not change.
type refusal struct{ error }

// follow reads one gateway until ctx ends or it refuses.
func (f *follower) follow(ctx context.Context, gateway string) error {
	first, away := true, false
	for ctx.Err() == nil {
		connected := func() {
			if first {
				f.begun <- nil
			} else if away {
				f.o.Note(gateway + " is back")
			}
			first, away = false, false
		}
		err := f.read(ctx, gateway, connected)
		var no refusal
		if errors.As(err, &no) {
			return no.error
		}
		if ctx.Err() != nil {
			return nil
		}
		if first {
			f.begun <- err
		} else if !away {
			f.o.Note(again(fmt.Errorf("%s: %w", gateway, err)))
		}
		first, away = false, true
		select {
		case <-time.After(retryEvery):
		case <-ctx.Done():
		}
	}
	return nil
}

func again(err error) string { return err.Error() + "; it is asked again until it answers" }

// read follows one connection to its end, which is always an error.
func (f *follower) read(ctx context.Context, gateway string, connected func()) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(silenceMax, func() { cancel(fmt.Errorf("no sign of life for %v", silenceMax)) })
	defer silence.Stop()
	resp, err := f.ask(ctx, gateway)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	connected()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, lineBytesMax)
	for lines.Scan() {
		if len(lines.Bytes()) == 0 {
			silence.Reset(silenceMax)
			continue
		}
		silence.Stop() // our own consumer may take long
		e := &trace.Event{}
		if err := json.Unmarshal(lines.Bytes(), e); err != nil {
			return refusal{fmt.Errorf("%s tells what is no event: %w", gateway, err)}
		}
		select {
		case f.events <- e:
		case <-ctx.Done():
		}
		silence.Reset(silenceMax)
	}
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return errors.New("the gateway ended the trace")
}

// ask sends the request and checks the head of the answer.
func (f *follower) ask(ctx context.Context, gateway string) (*http.Response, error) {
	k := &f.o.Keys
	target, err := url.Parse(gateway)
	if err != nil || target.Host == "" || target.Scheme != "http" && target.Scheme != "https" {
		return nil, refusal{fmt.Errorf("%q is no address of a gateway: want http://HOST:PORT or https://HOST", gateway)}
	}
	target.Path, target.RawQuery = "/", query(&f.o.Filter).Encode()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return nil, refusal{err}
	}
	r.Header.Set("X-Amz-Content-Sha256", emptySHA256)
	keys := aws.Credentials{AccessKeyID: k.AccessKey, SecretAccessKey: k.SecretKey, SessionToken: k.Token}
	plain := func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true }
	if err := v4.NewSigner().SignHTTP(ctx, keys, r, emptySHA256, "s3", k.Region, time.Now(), plain); err != nil {
		return nil, refusal{err}
	}
	resp, err := f.http.Do(r)
	if err != nil {
		return nil, fmt.Errorf("nothing answers at %s (%w): is the gateway running?", gateway, err)
	}
	if resp.StatusCode == http.StatusOK && resp.Header.Get("Content-Type") == "application/x-ndjson" {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, judge(gateway, resp)
}

// query is the filter as a gateway takes it.
func query(f *trace.Filter) url.Values {
	q := url.Values{"x-ashlar-trace": {""}}
	if f.Slow > 0 {
		q.Set("x-ashlar-slow", f.Slow.String())
	}
	if f.Errors {
		q.Set("x-ashlar-errors", "")
	}
	if f.Bucket != "" {
		q.Set("x-ashlar-bucket", f.Bucket)
	}
	if f.ID != "" {
		q.Set("x-ashlar-request-id", f.ID)
	}
	return q
}

// judge says what an answer that is no trace means.
func judge(gateway string, resp *http.Response) error {
	if resp.StatusCode/100 == 2 {
		return refusal{fmt.Errorf("%s answers, but not with a trace: is it a gateway of Ashlar of this version?", gateway)}
	}
	var e struct{ Code, Message string }
	text, _ := io.ReadAll(io.LimitReader(resp.Body, lineBytesMax)) // what came is what we can tell
	if xml.Unmarshal(text, &e) != nil || e.Code == "" {
		e.Code = resp.Status
	}
	err := fmt.Errorf("%s: %s", gateway, strings.TrimSuffix(e.Code+": "+e.Message, ": "))
	switch {
	case resp.StatusCode >= 500:
		return err
	case e.Code == "AccessDenied":
		err = fmt.Errorf("%s: these keys may not see what all accounts do: use the root key of gateway.toml, or a user of its account whom a policy allows ashlar:TraceRequests", gateway)
	}
	return refusal{err}
}
