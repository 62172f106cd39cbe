package courier

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"ashlar"
	"ashlar/s3gw/notify"
	"ashlar/s3gw/trust"
)

// kafka produces a record for each event, keyed by bucket and key, so that those of
// one key stay in order.
type kafka struct{ client *kgo.Client }

// kafkaID is the header of a record that holds the event's id.
const kafkaID = "ashlar-event-id"

func openKafka(c *Config) (Target, error) {
	if c.Topic == "" || c.Address == "" {
		return nil, errors.New("kafka needs address (brokers as HOST:PORT, with commas) and topic")
	}
	opts := []kgo.Opt{
		kgo.SeedBrokers(strings.Split(c.Address, ",")...), kgo.DefaultProduceTopic(c.Topic), kgo.ClientID("ashlar"),
		kgo.RequiredAcks(kgo.AllISRAcks()), kgo.RecordDeliveryTimeout(SendTimeout), kgo.ProducerLinger(0), kgo.DisableClientMetrics(),
	}
	if c.TLS || c.CAFile != "" {
		t, err := trust.TLS(c.CAFile)
		if err != nil {
			return nil, err
		}
		opts = append(opts, kgo.DialTLSConfig(t))
	}
	if c.User != "" {
		m, err := c.mechanism()
		if err != nil {
			return nil, err
		}
		opts = append(opts, kgo.SASL(m))
	}
	client, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, err
	}
	return &kafka{client}, nil
}

// mechanism is how the user proves who it is.
func (c *Config) mechanism() (sasl.Mechanism, error) {
	password, err := secret(c.PasswordFile)
	if err != nil {
		return nil, err
	}
	if password == "" {
		return nil, errors.New("user needs password-file")
	}
	auth := scram.Auth{User: c.User, Pass: password}
	switch c.SASL {
	case "", "scram-sha-512":
		return auth.AsSha512Mechanism(), nil
	case "scram-sha-256":
		return auth.AsSha256Mechanism(), nil
	case "plain":
		if c.readable() {
			return nil, errReadable
		}
		return plain.Auth{User: c.User, Pass: password}.AsMechanism(), nil
	}
	return nil, fmt.Errorf("sasl %q: want scram-sha-512, scram-sha-256 or plain", c.SASL)
}

// Send implements Target.
func (k *kafka) Send(ctx context.Context, e *notify.Event, record []byte) error {
	// The time of a record is when it is sent: the time-out of its delivery counts from it.
	r := &kgo.Record{
		Key: []byte(e.Bucket + "/" + e.Key), Value: record,
		Headers: []kgo.RecordHeader{{Key: kafkaID, Value: []byte(e.ID)}},
	}
	if err := k.client.ProduceSync(ctx, r).FirstErr(); err != nil {
		return ashlar.E("kafka: send", "", ashlar.Unavailable, err)
	}
	return nil
}

// Close implements Target.
func (k *kafka) Close() { k.client.Close() }
