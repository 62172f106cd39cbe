// Package courier carries events to those whom an operator wants told: over HTTP, and
// through the brokers that others read from.
//
// A target is declared in the configuration of the gateways, with its address and
// what proves who we are; a client names it by its ARN and can give no address. Send
// returns nil when the target has taken the event for good:
//
//	webhook   any answer of the 200s. Redirects are not followed
//	kafka     all in-sync replicas of the partition have the record
//	nats      a stream of JetStream has the message
//
// It does not know queues, nor when to try again: who calls it does.
package courier

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"ashlar"
	"ashlar/s3gw/notify"
	"ashlar/s3gw/trust"
)

// SendTimeout bounds one attempt to send an event.
const SendTimeout = 8 * time.Second

// The kinds of targets.
const (
	KindWebhook = "webhook"
	KindKafka   = "kafka"
	KindNATS    = "nats"
)

// Config declares a target.
type Config struct {
	// Name is what clients call it, in its ARN: 1 to 64 of a-z, 0-9 and "-".
	Name string `toml:"name"`
	// Kind is webhook, kafka or nats.
	Kind string `toml:"kind"`
	// Address is the URL of a webhook; the brokers of Kafka as HOST:PORT, or the
	// servers of NATS as URLs, with commas in between.
	Address string `toml:"address"`
	// Topic is the topic of Kafka, or the subject of NATS, which a stream must listen
	// to.
	Topic string `toml:"topic,omitempty"`
	// TokenFile holds what is sent to a webhook as a bearer token, or to NATS.
	TokenFile string `toml:"token-file,omitempty"`
	// User and what PasswordFile holds are for Kafka and NATS. SASL is Kafka's
	// mechanism: scram-sha-512 if empty, scram-sha-256 or plain.
	User         string `toml:"user,omitempty"`
	PasswordFile string `toml:"password-file,omitempty"`
	SASL         string `toml:"sasl,omitempty"`
	// TLS has Kafka and NATS reached by TLS; a CAFile does too.
	TLS bool `toml:"tls,omitempty"`
	// CAFile holds the certificates, in PEM, that a target's own must lead to; empty
	// takes those of the system.
	CAFile string `toml:"ca-file,omitempty"`
}

// ARN is how clients name the target.
func (c *Config) ARN() string { return notify.ARN(c.Name, c.Kind) }

// Target takes events. It may be called from many goroutines.
type Target interface {
	// Send sends an event with its record. An error says that the target may not have
	// it: it is to be sent again.
	Send(ctx context.Context, e *notify.Event, record []byte) error
	Close()
}

var open = map[string]func(*Config) (Target, error){
	KindWebhook: openWebhook, KindKafka: openKafka, KindNATS: openNATS,
}

// Open returns a target; it does not have to be there yet. Errors have kind Invalid.
func Open(c Config) (Target, error) {
	err := notify.CheckName(c.Name)
	var t Target
	if f := open[c.Kind]; err == nil && f != nil {
		t, err = f(&c)
	} else if err == nil {
		err = fmt.Errorf("kind %q: want webhook, kafka or nats", c.Kind)
	}
	if err != nil {
		return nil, ashlar.E("notify: target", c.Name, ashlar.Invalid, err)
	}
	return t, nil
}

// secret reads a file that holds one word; an empty path is no word.
func secret(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	b, err := os.ReadFile(path)
	if err == nil && len(bytes.TrimSpace(b)) == 0 {
		err = fmt.Errorf("%s is empty", path)
	}
	return string(bytes.TrimSpace(b)), err
}

// readable reports whether a password that is sent as it is can be read on the way to
// one of the servers, each HOST:PORT or a URL, with commas.
func (c *Config) readable() bool {
	if c.TLS || c.CAFile != "" {
		return false
	}
	return slices.ContainsFunc(strings.Split(c.Address, ","), func(server string) bool {
		if !strings.Contains(server, "://") {
			server = "//" + server
		}
		u, err := url.Parse(strings.TrimSpace(server))
		return err != nil || u.Scheme != "tls" && !trust.Local(u.Hostname())
	})
}

var errReadable = errors.New("a password or token would go in the clear to another machine: set tls = true")

// webhook sends events as POST.
type webhook struct {
	url, bearer string
	client      *http.Client
}

// webhookConns bounds the connections to one webhook.
const webhookConns = 64

func openWebhook(c *Config) (Target, error) {
	u, err := url.Parse(c.Address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
		return nil, errors.New("address: want an http or https URL without a user")
	}
	w := &webhook{url: c.Address}
	token, err := secret(c.TokenFile)
	if err != nil {
		return nil, err
	}
	if token != "" {
		if !trust.Private(u) {
			return nil, errors.New("token-file: a token goes by https only, or by http to this machine")
		}
		w.bearer = "Bearer " + token
	}
	roots, err := trust.TLS(c.CAFile)
	if err != nil {
		return nil, err
	}
	w.client = &http.Client{
		Transport: &http.Transport{
			TLSClientConfig: roots, MaxConnsPerHost: webhookConns, MaxIdleConnsPerHost: webhookConns, IdleConnTimeout: time.Minute,
			Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return w, nil
}

// answerBytesMax is what is read of a webhook's answer, to use the connection again.
const answerBytesMax = 64 << 10

// Send implements Target.
func (w *webhook) Send(ctx context.Context, e *notify.Event, record []byte) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url, bytes.NewReader(record))
	if err != nil {
		return ashlar.E("webhook: send", "", ashlar.Internal, err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "Ashlar")
	r.Header.Set("X-Ashlar-Event-Id", e.ID)
	if w.bearer != "" {
		r.Header.Set("Authorization", w.bearer)
	}
	resp, err := w.client.Do(r)
	if err != nil {
		return ashlar.E("webhook: send", "", ashlar.Unavailable, err)
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, answerBytesMax) // its status is all that counts
	if resp.StatusCode/100 != 2 {
		return ashlar.E("webhook: send", "", ashlar.Unavailable, errors.New("the target answered "+strings.ToLower(resp.Status)))
	}
	return nil
}

// Close implements Target.
func (w *webhook) Close() { w.client.CloseIdleConnections() }
