package s3gw

import (
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"ashlar/s3gw/notify/courier"
	"ashlar/s3gw/store"
)

func notificationDocument(in string) string {
	return "<NotificationConfiguration>" + in + "</NotificationConfiguration>"
}

func TestNotificationDocuments(t *testing.T) {
	g := startReal(t, "bucket", func(o *Options) {
		o.Targets = []courier.Config{{Name: "lake", Kind: "webhook"}, {Name: "other", Kind: "webhook"}}
	})
	put := func(in string) answer {
		return g.do(t, testCall{method: "PUT", target: "/bucket?notification", body: notificationDocument(in)})
	}
	get := func() answer {
		return g.do(t, testCall{method: "GET", target: "/bucket?notification"}).want(t, 200, "")
	}
	const arn, created = "<Queue>arn:ashlar:sqs::lake:webhook</Queue>", "<Event>s3:ObjectCreated:*</Event>"
	queue := func(in string) string { return "<QueueConfiguration>" + in + "</QueueConfiguration>" }
	filter := func(rules ...string) string {
		out := ""
		for _, r := range rules {
			name, value, _ := strings.Cut(r, "=")
			out += "<FilterRule><Name>" + name + "</Name><Value>" + value + "</Value></FilterRule>"
		}
		return "<Filter><S3Key>" + out + "</S3Key></Filter>"
	}
	if a := get(); !strings.HasSuffix(a.body, `/2006-03-01/"></NotificationConfiguration>`) {
		t.Error(a.body)
	}
	for in, code := range map[string]string{
		"<Surprise/>": "MalformedXML", queue(arn): "MalformedXML", queue(created): "InvalidArgument", queue(arn + arn + created): "MalformedXML",
		queue(arn + "<Event>s3:ObjectCreated:Teleport</Event>"): "InvalidArgument", queue(arn + "<Event>s3:*</Event>"): "InvalidArgument",
		queue(arn + "<Event>s3:ObjectRestore:*</Event>"):                                                        "InvalidArgument", // it never happens here
		queue("<Queue>http://127.0.0.1/</Queue>" + created):                                                     "InvalidArgument",
		queue("<Queue>arn:aws:sqs:us-east-1:1:lake</Queue>" + created):                                          "InvalidArgument",
		queue("<Queue>arn:ashlar:sqs::nobody:webhook</Queue>" + created):                                        "InvalidArgument",
		queue("<Queue>arn:ashlar:sqs::lake:kafka</Queue>" + created):                                            "InvalidArgument",
		queue("<Queue>arn:ashlar:sqs:mars-1:lake:webhook</Queue>" + created):                                    "InvalidArgument",
		queue("<Topic>arn:ashlar:sqs::lake:webhook</Topic>" + created):                                          "MalformedXML",
		queue(arn + created + filter("middle=x")):                                                               "InvalidArgument",
		queue(arn + created + filter("prefix=x", "Prefix=y")):                                                   "InvalidArgument",
		queue(arn + created + filter("prefix="+strings.Repeat("x", 1025))):                                      "InvalidArgument",
		queue("<Id>" + strings.Repeat("x", 256) + "</Id>" + arn + created):                                      "InvalidArgument",
		queue("<Id>1</Id>"+arn+created+filter("prefix=a")) + queue("<Id>1</Id>"+arn+created+filter("prefix=b")): "InvalidArgument",
		queue(arn+created) + queue(arn+"<Event>s3:ObjectCreated:Put</Event>"):                                   "InvalidArgument", // overlap
		queue(arn+created+filter("prefix=a")) + queue(arn+created+filter("prefix=ab")):                          "InvalidArgument",
		queue(arn+created+filter("prefix=a")) + queue(arn+created+filter("suffix=b")):                           "InvalidArgument",
		strings.Repeat(queue(arn+created), 101):                                                                 "InvalidRequest",
	} {
		if got := put(in); got.status != 400 || got.code != code {
			t.Errorf("%.300s: %d %s, want %s", in, got.status, got.code, code)
		}
	}
	put("<EventBridgeConfiguration/>").want(t, 501, "NotImplemented")
	full := queue("<Id>1</Id>"+arn+created+filter("Prefix=in/", "Suffix=.j&amp;g")) +
		"<TopicConfiguration><Id>2</Id><Topic>arn:ashlar:sqs:us-east-1:other:webhook</Topic><Event>s3:ObjectCreated:Put</Event><Event>s3:ObjectRemoved:Delete</Event>" + filter("Prefix=out/") + "</TopicConfiguration>" +
		"<CloudFunctionConfiguration><Id>3</Id><CloudFunction>arn:ashlar:sqs::lake:webhook</CloudFunction><Event>s3:ObjectTagging:*</Event></CloudFunctionConfiguration>"
	put(full).want(t, 200, "")
	if got := get(); !strings.HasSuffix(got.body, `/2006-03-01/">`+full+"</NotificationConfiguration>") {
		t.Error(got.body)
	}
	put(queue(arn+created)).want(t, 200, "")
	if got := get(); strings.Contains(got.body, "<Id></Id>") || !strings.Contains(got.body, "<Id>") {
		t.Error("no id was given:", got.body)
	}
	put("").want(t, 200, "")
	if a := get(); !strings.HasSuffix(a.body, `/2006-03-01/"></NotificationConfiguration>`) {
		t.Error(a.body)
	}
}

// hook is a webhook that can be away.
type hook struct {
	*httptest.Server
	mu      sync.Mutex
	away    bool
	refused int
	tests   []string
	records []map[string]any
	headers []http.Header
}

func newHook(t *testing.T) *hook {
	h := &hook{}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var message struct {
			Event   string
			Records []map[string]any
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.away || err != nil || json.Unmarshal(body, &message) != nil || len(message.Records) != 1 && message.Event == "" {
			h.refused++
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		if message.Event != "" {
			h.tests = append(h.tests, string(body))
			return
		}
		h.records, h.headers = append(h.records, message.Records[0]), append(h.headers, r.Header)
	}))
	t.Cleanup(h.Server.Close)
	return h
}

func (h *hook) state() (refused int, records []map[string]any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.refused, h.records
}

func (h *hook) tested() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.tests)
}

// TestWebhookIsTold follows an object from the request of a client to a webhook that
// is away at first.
func TestWebhookIsTold(t *testing.T) {
	h := newHook(t)
	h.away = true
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("s3cr3t\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	declared := []courier.Config{{Name: "lake", Kind: "webhook", Address: h.URL, TokenFile: token}}
	var s *store.Store
	g := startReal(t, "bucket", func(o *Options) { s, o.Targets = o.Backend.(*store.Store), declared })
	targets, end, err := openTargets(declared, testRegion)
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	done := make(chan struct{})
	go func() { s.RunQueues(ctx, targets); close(done) }()
	defer func() { stop(); <-done }()
	document := notificationDocument("<QueueConfiguration><Id>all</Id><Queue>arn:ashlar:sqs::lake:webhook</Queue><Event>s3:ObjectCreated:*</Event></QueueConfiguration>")
	set := g.do(t, testCall{method: "PUT", target: "/bucket?notification", body: document}).want(t, 200, "")
	g.do(t, testCall{method: "PUT", target: "/bucket?notification", body: document,
		headers: map[string]string{"X-Amz-Skip-Destination-Validation": "true"}}).want(t, 200, "")
	put := g.do(t, testCall{method: "PUT", target: "/bucket/my%20f%C3%BClder/a%2Bb.jpg", body: "content"}).want(t, 200, "")
	until := func(what string, ok func() bool) {
		t.Helper()
		for !ok() {
			select {
			case <-ctx.Done():
				t.Fatal("waited for", what)
			case <-time.After(time.Millisecond):
			}
		}
	}
	until("an attempt", func() bool { refused, _ := h.state(); return refused > 0 })
	h.mu.Lock()
	h.away = false
	h.mu.Unlock()
	until("the event", func() bool { _, records := h.state(); return len(records) > 0 })
	until("the test", func() bool { return len(h.tested()) > 0 })
	form := testForm{bucket: "bucket", file: "x", conditions: anyForm, fields: [][2]string{{"key", "up/form"}}}
	form.send(t, g).want(t, 204, "")
	until("the event of a form", func() bool { _, records := h.state(); return len(records) > 1 })
	tests := h.tested()
	var test map[string]string
	if err := json.Unmarshal([]byte(tests[0]), &test); err != nil || len(tests) != 1 {
		t.Errorf("%d tests, %v", len(tests), err)
	}
	if _, err := time.Parse(time.RFC3339, test["Time"]); err != nil {
		t.Error(err)
	}
	delete(test, "Time")
	if want := map[string]string{
		"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "bucket", "RequestId": set.header.Get("X-Amz-Request-Id"), "HostId": "gw1",
	}; !maps.Equal(test, want) {
		t.Errorf("got  %v\nwant %v", test, want)
	}
	_, records := h.state()
	if name := records[1]["eventName"]; name != "ObjectCreated:Post" {
		t.Error(name)
	}
	r := records[0]
	object := r["s3"].(map[string]any)["object"].(map[string]any)
	if len(object["sequencer"].(string)) != 16 || h.headers[0].Get("Authorization") != "Bearer s3cr3t" || h.headers[0].Get("X-Ashlar-Event-Id") == "" {
		t.Error(object, h.headers[0])
	}
	if _, err := time.Parse(time.RFC3339, r["eventTime"].(string)); err != nil {
		t.Error(err)
	}
	delete(object, "sequencer")
	delete(r, "eventTime")
	got, _ := json.Marshal(r)
	var wanted any
	json.Unmarshal([]byte(`{"eventVersion":"2.1","eventSource":"aws:s3","awsRegion":"us-east-1","eventName":"ObjectCreated:Put",
		"userIdentity":{"principalId":"`+testAccount+`"},"requestParameters":{"sourceIPAddress":"127.0.0.1"},
		"responseElements":{"x-amz-request-id":"`+put.header.Get("X-Amz-Request-Id")+`","x-amz-id-2":"gw1"},
		"s3":{"s3SchemaVersion":"1.0","configurationId":"all","bucket":{"name":"bucket","ownerIdentity":{"principalId":"`+testAccount+`"},"arn":"arn:aws:s3:::bucket"},
		"object":{"key":"my+f%C3%BClder/a%2Bb.jpg","size":7,"eTag":`+put.header.Get("ETag")+`}}}`), &wanted)
	if want, _ := json.Marshal(wanted); string(got) != string(want) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestTargetsAreDeclaredWell(t *testing.T) {
	good := courier.Config{Name: "lake", Kind: "webhook", Address: "http://127.0.0.1:1/"}
	if _, _, err := openTargets([]courier.Config{good, good}, testRegion); err == nil {
		t.Error("one name for two targets was taken")
	}
	for _, c := range []courier.Config{
		{Name: "Lake", Kind: "webhook", Address: "http://h/"}, {Name: "", Kind: "webhook", Address: "http://h/"}, {Name: "lake", Kind: "pigeon", Address: "http://h/"},
		{Name: "lake", Kind: "webhook", Address: "ftp://h/"}, {Name: "lake", Kind: "webhook", Address: "/h"}, {Name: "lake", Kind: "webhook", Address: "http://u:p@h/"},
		{Name: "lake", Kind: "webhook", Address: "http://h/", TokenFile: "/nowhere"}, {Name: "lake", Kind: "webhook", Address: "http://h/", CAFile: "/nowhere"},
	} {
		if _, _, err := openTargets([]courier.Config{c}, testRegion); err == nil {
			t.Errorf("%+v was taken", c)
		}
	}
}
