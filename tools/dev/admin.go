package dev

import (
	"bytes"
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"ashlar/placement/health"
	"ashlar/tools/operate"
)

// Verbs that break and mend a running cluster.
const (
	KillDisk   = "kill-disk"
	ReviveDisk = "revive-disk"
	KillHost   = "kill-host"
	ReviveHost = "revive-host"
)

// Verbs lists them in the order of the help text.
var Verbs = []string{KillDisk, ReviveDisk, KillHost, ReviveHost}

// target is a running cluster as its admin listener sees it.
type target interface {
	Status(ctx context.Context) (health.Status, error)
	// Fault applies one of Verbs to the named disk or host. The error names
	// what exists when the name is unknown.
	Fault(ctx context.Context, verb, name string) error
	// Ask answers a question of package operate with JSON.
	Ask(ctx context.Context, question string, args []string) ([]byte, error)
}

const (
	adminTimeout  = 15 * time.Second
	adminBytesMax = 64 << 10
)

// serveAdmin answers status and fault requests until ctx ends. Whoever asks
// must show the cluster's secret key.
func serveAdmin(ctx context.Context, l net.Listener, secret string, t target) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, r *http.Request) {
		s, err := t.Status(r.Context())
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(s)
	})
	mux.HandleFunc("POST /v1/fault", func(w http.ResponseWriter, r *http.Request) {
		var f fault
		if err := json.NewDecoder(io.LimitReader(r.Body, adminBytesMax)).Decode(&f); err != nil {
			http.Error(w, "want {\"verb\":…,\"name\":…}: "+err.Error(), http.StatusBadRequest)
			return
		}
		if err := t.Fault(r.Context(), f.Verb, f.Name); err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
		}
	})
	mux.HandleFunc("POST /v1/ask", func(w http.ResponseWriter, r *http.Request) {
		var q question
		if err := json.NewDecoder(io.LimitReader(r.Body, adminBytesMax)).Decode(&q); err != nil {
			http.Error(w, "want {\"question\":…,\"args\":[…]}: "+err.Error(), http.StatusBadRequest)
			return
		}
		b, err := t.Ask(r.Context(), q.Question, q.Args)
		if err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Write(b)
	})
	server := &http.Server{
		Handler:           authorized(secret, mux),
		ReadHeaderTimeout: adminTimeout,
		ReadTimeout:       adminTimeout,
		MaxHeaderBytes:    adminBytesMax,
	}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

type question struct {
	Question string   `json:"question"`
	Args     []string `json:"args"`
}

type fault struct {
	Verb string `json:"verb"`
	Name string `json:"name"`
}

// authorized lets only requests through that carry the secret.
func authorized(secret string, next http.Handler) http.Handler {
	want := []byte("Bearer " + secret)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), want) != 1 {
			http.Error(w, "the Authorization header must carry the cluster's secret key", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Remote speaks to the admin listener of a running cluster.
type Remote struct {
	URL, Secret string
}

// Find returns the running cluster of a directory.
func Find(dir string) (*Remote, error) {
	s, err := loadState(dir)
	if err != nil {
		return nil, err
	}
	if s == nil {
		return nil, fmt.Errorf("no dev cluster in %s: start one with `ashlar dev`, or name its directory with --dir", dir)
	}
	if s.Admin == "" {
		return nil, fmt.Errorf("the dev cluster in %s has never come up: start it with `ashlar dev --dir %s`", dir, dir)
	}
	return &Remote{URL: "http://" + s.Admin, Secret: s.SecretKey}, nil
}

// MembersOf returns the addresses of the placement members of the dev cluster in
// a directory.
func MembersOf(dir string) ([]string, error) {
	s, err := loadState(dir)
	if err != nil {
		return nil, err
	}
	if s == nil {
		return nil, fmt.Errorf("no dev cluster in %s", dir)
	}
	var members []string
	for i := range s.Members {
		if port, ok := s.Ports[fmt.Sprintf("p%d.rpc", i+1)]; ok {
			members = append(members, fmt.Sprintf("127.0.0.1:%d", port))
		}
	}
	return members, nil
}

// GatewaysOf returns the URLs of the gateways of the dev cluster in a directory, and
// its root key.
func GatewaysOf(dir string) (urls []string, accessKey, secretKey string, err error) {
	if _, err := Find(dir); err != nil {
		return nil, "", "", err
	}
	s, err := loadState(dir)
	if err != nil {
		return nil, "", "", err
	}
	urls = []string{"http://" + s.S3}
	for _, name := range numbered("g", s.Gateways)[1:] {
		if port, ok := s.Ports[name+".s3"]; ok {
			urls = append(urls, fmt.Sprintf("http://127.0.0.1:%d", port))
		}
	}
	return urls, s.AccessKey, s.SecretKey, nil
}

// Status asks for the health of the cluster.
func (r *Remote) Status(ctx context.Context) (health.Status, error) {
	var s health.Status
	b, err := r.call(ctx, http.MethodGet, "/v1/status", nil)
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal(b, &s)
}

// Fault applies one of Verbs.
func (r *Remote) Fault(ctx context.Context, verb, name string) error {
	b, err := json.Marshal(fault{verb, name})
	if err != nil {
		return err
	}
	_, err = r.call(ctx, http.MethodPost, "/v1/fault", b)
	return err
}

// Ask asks a question of package operate. The answer is JSON.
func (r *Remote) Ask(ctx context.Context, what string, args []string) ([]byte, error) {
	b, err := json.Marshal(question{what, args})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, operate.CallMax+adminTimeout)
	defer cancel()
	return r.send(ctx, http.MethodPost, "/v1/ask", b)
}

func (r *Remote) call(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*adminTimeout)
	defer cancel()
	return r.send(ctx, method, path, body)
}

func (r *Remote) send(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(r.URL, "/")+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+r.Secret)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("nothing answers at %s (%w): is the cluster running?", r.URL, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err == nil && resp.StatusCode/100 != 2 {
		err = errors.New(strings.TrimSpace(string(b)))
	}
	return b, err
}
