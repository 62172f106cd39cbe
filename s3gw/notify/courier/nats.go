package courier

import (
	"context"
	"errors"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"ashlar"
	"ashlar/s3gw/notify"
	"ashlar/s3gw/trust"
)

// natsTarget publishes each event to a subject that a stream of JetStream listens to:
// NATS by itself acknowledges nothing.
type natsTarget struct {
	conn    *nats.Conn
	stream  jetstream.JetStream
	subject string
}

func openNATS(c *Config) (Target, error) {
	if c.Topic == "" || c.Address == "" {
		return nil, errors.New("nats needs address (nats://HOST:PORT, with commas) and topic, the subject")
	}
	// What cannot be published now is not kept here: it is in the queue.
	opts := []nats.Option{nats.Name("ashlar"), nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.ReconnectBufSize(-1), nats.Timeout(SendTimeout)}
	if c.TLS || c.CAFile != "" {
		t, err := trust.TLS(c.CAFile)
		if err != nil {
			return nil, err
		}
		opts = append(opts, nats.Secure(t))
	}
	token, err := secret(c.TokenFile)
	if err != nil {
		return nil, err
	}
	password, err := secret(c.PasswordFile)
	if err != nil {
		return nil, err
	}
	switch {
	case (token != "" || password != "") && c.readable():
		return nil, errReadable
	case token != "" && c.User != "":
		return nil, errors.New("token-file and user exclude each other")
	case token != "":
		opts = append(opts, nats.Token(token))
	case c.User != "" && password == "":
		return nil, errors.New("user needs password-file")
	case c.User != "":
		opts = append(opts, nats.UserInfo(c.User, password))
	}
	conn, err := nats.Connect(c.Address, opts...)
	if err != nil {
		return nil, err
	}
	stream, err := jetstream.New(conn)
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &natsTarget{conn, stream, c.Topic}, nil
}

// Send implements Target. The id lets the stream drop an event that it has.
func (n *natsTarget) Send(ctx context.Context, e *notify.Event, record []byte) error {
	if _, err := n.stream.Publish(ctx, n.subject, record, jetstream.WithMsgID(e.ID)); err != nil {
		return ashlar.E("nats: send", "", ashlar.Unavailable, err)
	}
	return nil
}

// Close implements Target.
func (n *natsTarget) Close() { n.conn.Close() }
