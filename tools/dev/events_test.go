package dev

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"ashlar"
	"ashlar/tools/dev/devtest"
	"ashlar/tools/operate"
)

// listener is a webhook that counts what it is told, and is away at times.
type listener struct {
	away atomic.Bool
	mu   sync.Mutex
	told map[string]int // by event and key
}

func (l *listener) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var message struct {
		Records []struct {
			EventName string
			S3        struct{ Object struct{ Key string } }
		}
	}
	if l.away.Load() || json.NewDecoder(r.Body).Decode(&message) != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, rec := range message.Records {
		l.told[rec.EventName+" "+rec.S3.Object.Key]++
	}
}

// TestEventsSurviveKills writes through two gateways that are killed again and again,
// while the webhook comes and goes: every change that was acknowledged is told.
func TestEventsSurviveKills(t *testing.T) {
	l := &listener{told: map[string]int{}}
	hook := httptest.NewServer(l)
	defer hook.Close()
	cfg := testConfig(t)
	cfg.Zones, cfg.Hosts, cfg.Disks, cfg.Profile, cfg.Gateways, cfg.Webhook = 3, 1, 1, ashlar.Code{K: 2, M: 1}, 2, hook.URL
	p, err := StartProcesses(t.Context(), cfg, Options{Program: devtest.Program(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	cfg = p.Config()
	admin := s3Client(t, p.S3(), cfg)
	makeBucket(t, admin)
	if _, err := admin.PutBucketNotificationConfiguration(t.Context(), &s3.PutBucketNotificationConfigurationInput{
		Bucket: aws.String(bucketName), NotificationConfiguration: &types.NotificationConfiguration{QueueConfigurations: []types.QueueConfiguration{{
			QueueArn: aws.String(WebhookARN), Events: []types.Event{"s3:ObjectCreated:*", "s3:ObjectRemoved:*"},
		}}},
	}); err != nil {
		t.Fatal(err)
	}

	var mu sync.Mutex
	var acknowledged []string
	var failed, kills int
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for n, url := range append(p.Gateways(), p.Gateways()...) {
		client := s3Client(t, url, cfg)
		clients.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				key := aws.String(fmt.Sprintf("%d-%d", n, i))
				var did []string
				_, err := client.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String(bucketName), Key: key, Body: strings.NewReader("x")})
				if err == nil {
					did = append(did, "ObjectCreated:Put "+*key)
					if _, err = client.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: aws.String(bucketName), Key: key}); err == nil {
						did = append(did, "ObjectRemoved:Delete "+*key)
					}
				}
				mu.Lock()
				acknowledged = append(acknowledged, did...)
				if err != nil {
					failed++
				}
				mu.Unlock()
				if err != nil { // the gateway is about to come back
					time.Sleep(20 * time.Millisecond)
				}
			}
		})
	}
	enough := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(acknowledged) >= changesWanted && kills >= killsWanted
	}
	for end := time.Now().Add(healBound); !enough() && time.Now().Before(end); {
		l.away.Store(rand.IntN(2) == 0)
		if name := p.GatewayNames()[rand.IntN(2)]; p.Kill(name) {
			kills++
		}
		time.Sleep(time.Second)
	}
	close(stop)
	clients.Wait()
	l.away.Store(false)
	quiet := time.Now()
	devtest.Eventually(t, healBound, func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		missing := 0
		for _, event := range acknowledged {
			if l.told[event] == 0 {
				missing++
			}
		}
		if missing > 0 {
			return fmt.Errorf("%d of %d changes are not told yet", missing, len(acknowledged))
		}
		return nil
	})
	told := time.Since(quiet)
	devtest.Eventually(t, healBound, func() error { // the last rows go after the last messages
		b, err := p.Ask(t.Context(), operate.NotifyStatus, nil)
		var status operate.Notifications
		if err == nil {
			err = json.Unmarshal(b, &status)
		}
		if err == nil && (len(status.Targets) != 1 || status.Targets[0].Target != webhookName || status.Targets[0].Pending != 0 || status.Targets[0].Lost != 0) {
			err = fmt.Errorf("the queues say %s", b)
		}
		return err
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	messages := 0
	for _, n := range l.told {
		messages += n
	}
	t.Logf("told after %v, queues empty after %v", told.Round(time.Second), time.Since(quiet).Round(time.Second))
	t.Logf("%d changes acknowledged, %d requests failed, %d gateways killed; %d events in %d messages", len(acknowledged), failed, kills, len(l.told), messages)
	if !enough() {
		t.Error("nothing was tested")
	}
}

// What TestEventsSurviveKills does at least.
const (
	changesWanted = 500
	killsWanted   = 8
)
