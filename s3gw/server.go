// Package s3gw is the S3 gateway: it takes HTTP from clients and calls the
// store. It is stateless; any number of gateways may stand behind any load
// balancer.
//
// A request goes one way and only this way:
//
//	limits    too many requests → 503 SlowDown; header block too large → 400.
//	          A user's rate is judged when it is known who asks, a bucket's when
//	          it is known that he may (rates.go)
//	verify    sigv4 yields who sent it, or an error; a request that brings no
//	          credentials at all is nobody's. The
//	          signature of a POST form is in its fields (form.go): they are read,
//	          verified and judged here, and take the place of headers
//	target    bucket and key are parsed once into types, from the host and the
//	          escaped path; a key is opaque bytes and is never cleaned
//	route     (target, method, subresource) is looked up in the table of
//	          routes.go; what is not in the table is refused, never guessed
//	authorize every action that the request is, on every resource, is judged by
//	          the sender's policies, the bucket's policy and the ACLs (authorize.go)
//	body      one reader decodes, measures, hashes and verifies the bytes in one
//	          pass; it ends with an error instead of io.EOF if anything is wrong
//	handler   calls the backend and writes the answer, or returns an error,
//	          which becomes XML in one place
//
// Requests to IAM and STS, which are forms, go a way of their own with the same
// stations (query.go).
//
// One question comes unsigned, a browser's CORS preflight; it is answered before
// all this and from the bucket's CORS rules alone. And what comes for a host under a
// website domain leaves after the limits: website.go answers it, as nobody's.
//
// Handlers receive a call, and a call is made behind the verifier only.
package s3gw

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/netutil"

	"ashlar"
	"ashlar/placement/health"
	"ashlar/placement/topology"
	"ashlar/s3gw/iam/directory"
	"ashlar/s3gw/iam/oidc"
	"ashlar/s3gw/notify/courier"
	"ashlar/s3gw/s3"
	"ashlar/s3gw/sigv4"
	"ashlar/s3gw/store"
	"ashlar/s3gw/trace"
)

// Limits bound what one gateway spends on its clients. A zero field takes the
// default.
type Limits struct {
	// Requests is how many requests run at once; more get 503 SlowDown. 4096.
	Requests int
	// Connections is how many connections are open at once; more wait to be
	// accepted. 16384.
	Connections int
	// HeaderBytes bounds the header block of a request. 8 KiB.
	HeaderBytes int
	// HeaderTimeout bounds the arrival of the header block. 10 s.
	HeaderTimeout time.Duration
	// IdleTimeout closes connections that nobody uses. 2 min.
	IdleTimeout time.Duration
	// BodyStall is how long a body may stand still, and the window over which
	// its rate is measured. 20 s.
	BodyStall time.Duration
	// BodyBytesPerSecondMin is the slowest body that is waited for, measured
	// only while the gateway waits. 4 KiB.
	BodyBytesPerSecondMin int
	// WriteStall is how long a client may take no bytes of an answer. 60 s.
	WriteStall time.Duration
	// ShutdownGrace is how long Serve waits for running requests at its end. 10 s.
	ShutdownGrace time.Duration
}

func (l *Limits) setDefaults() {
	setDefault(&l.Requests, 4096)
	setDefault(&l.Connections, 16384)
	setDefault(&l.HeaderBytes, 8*ashlar.KiB)
	setDefault(&l.HeaderTimeout, 10*time.Second)
	setDefault(&l.IdleTimeout, 2*time.Minute)
	setDefault(&l.BodyStall, 20*time.Second)
	setDefault(&l.BodyBytesPerSecondMin, 4*ashlar.KiB)
	setDefault(&l.WriteStall, time.Minute)
	setDefault(&l.ShutdownGrace, 10*time.Second)
}

func setDefault[T int | time.Duration](v *T, to T) {
	if *v <= 0 {
		*v = to
	}
}

// Options are what a gateway is made of.
type Options struct {
	Backend     Backend           // required
	Credentials sigv4.Credentials // required; a *directory.Directory serves IAM and STS too
	// Region is the one that clients must sign for. us-east-1 if empty.
	Region string
	// AnyRegion takes what is signed for any region, and buckets that are to be in one:
	// for clients with another store's region in their code, as MinIO takes them.
	// All buckets are in Region none the less, and that is what is answered.
	AnyRegion bool
	// SignatureV2 takes Signature Version 2 besides Version 4: for clients that know no
	// better. It signs neither host nor body nor most of the query.
	SignatureV2 bool
	// Domains are the host names under which bucket.domain names a bucket.
	// Every other host is path-style.
	Domains []string
	// WebsiteDomains are those under which bucket.domain is a website.
	WebsiteDomains []string
	// ObjectOwnership is the mode of new buckets that ask for none:
	// BucketOwnerEnforced if empty, as on AWS. ObjectWriter makes buckets as AWS did
	// before 2023, with ACLs and without ownership controls.
	ObjectOwnership string
	// Answers is AnswersAWS, AnswersRGW or AnswersMinIO; empty is AWS's.
	Answers string
	// HostID is sent as x-amz-id-2: it says which gateway answered.
	HostID string
	// Log gets one line per request at debug, and failures of the server at
	// error. Nil discards.
	Log *slog.Logger
	// Clock judges signatures. Nil is time.Now.
	Clock  func() time.Time
	Limits Limits
	// Issuers are the identity providers whose tokens AssumeRoleWithWebIdentity may be
	// given, by URL. An account must accept a provider too.
	Issuers []string
	// Rates bounds what users and buckets may ask for. Nil has no bounds.
	Rates *Rates
	// Metrics receives the gateway's collectors. Nil keeps them private.
	Metrics prometheus.Registerer
	// Keys seals the data keys of SSE-S3 and SSE-KMS, for Run. Nil has none.
	Keys store.Keys
	// PlainKeys takes customers' keys over plain HTTP too: for tests.
	PlainKeys bool
	// Capacity returns how many bytes of user data the cluster holds and can hold,
	// for clients that ask by SOSAPI. Nil has none answered.
	Capacity func(context.Context) (used, total uint64, err error)
	// Health returns how the cluster is, for the metrics of Run. Nil has none collected.
	Health func(context.Context) (health.Status, error)
	// Operator is the canonical id of the account that may ask the gateway what all
	// accounts do. Run takes that of the root key if it is empty; else nobody may.
	Operator string
	// Maps returns the newest map, for names in traces. Run sets it; nil has ids instead.
	Maps func() *topology.Map
	// Targets are those whom clients may want told of events. Run sends to them.
	Targets []courier.Config
	// QueueMax is how many events of a target a shard keeps; 100,000 if zero.
	QueueMax int
	// LifecycleDay is how long the lifecycle worker of Run takes a day to be; 24
	// hours if zero.
	LifecycleDay time.Duration
}

// Server is one gateway.
type Server struct {
	backend  Backend
	verifier *sigv4.Verifier
	now      func() time.Time
	region   string
	// anyRegion takes buckets that are to be in another region.
	anyRegion bool
	domains   []string
	websites  []string
	hostID    string
	// plainKeys allows customers' keys without TLS.
	plainKeys bool
	log       *slog.Logger
	limits    Limits
	linger    time.Duration
	// userRates and bucketRates are nil without bounds.
	userRates, bucketRates *limiter
	routes                 routeTable
	metrics                *metrics

	accounts  Accounts             // nil: every key is the root of its account
	directory *directory.Directory // nil: there are no users
	tokens    *oidc.Verifier       // of identity providers
	failures  failures             // of tokens that were refused
	ownership string
	rgw       bool // answers as RGW's
	minio     bool // as MinIO's
	accesses  accessCache
	capacity  *capacity // nil: it is not known
	targets   []courier.Config
	accessLog *accessLog
	operator  string
	maps      func() *topology.Map // nil: there is none
	trace     trace.Hub

	inflight atomic.Int64
	idSeed   uint64
	idNext   atomic.Uint64
}

// New returns a gateway. It panics if Backend or Credentials is missing.
func New(o Options) *Server {
	if o.Backend == nil || o.Credentials == nil {
		panic("s3gw: New without Backend or Credentials")
	}
	if o.Region == "" {
		o.Region = "us-east-1"
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.HostID == "" {
		o.HostID = "ashlar"
	}
	if o.ObjectOwnership == "" {
		o.ObjectOwnership = s3.OwnerEnforced
	}
	accounts, _ := o.Credentials.(Accounts)
	users, _ := o.Credentials.(*directory.Directory)
	o.Limits.setDefaults()
	s := &Server{
		backend: o.Backend, now: o.Clock, region: o.Region, anyRegion: o.AnyRegion,
		hostID: o.HostID, plainKeys: o.PlainKeys, log: o.Log, limits: o.Limits, linger: lingerTime, routes: newRouteTable(routes), idSeed: rand.Uint64(),
		accounts: accounts, directory: users, tokens: oidc.New(o.Issuers, o.Clock), ownership: o.ObjectOwnership, rgw: o.Answers == AnswersRGW, minio: o.Answers == AnswersMinIO,
		targets: o.Targets, operator: o.Operator, maps: o.Maps,
	}
	if o.Rates != nil {
		s.userRates, s.bucketRates = newLimiter(o.Rates.User, o.Rates.Users), newLimiter(o.Rates.Bucket, o.Rates.Buckets)
	}
	if o.Capacity != nil {
		s.capacity = &capacity{ask: o.Capacity, now: o.Clock}
	}
	for _, d := range o.Domains {
		s.domains = append(s.domains, domain(d))
	}
	for _, d := range o.WebsiteDomains {
		s.websites = append(s.websites, domain(d))
	}
	verify := sigv4.Options{Credentials: o.Credentials, Region: o.Region, AnyRegion: o.AnyRegion, Now: o.Clock}
	if o.SignatureV2 {
		verify.Version2 = &sigv4.Version2{Bucket: s.bucketOfHost, Steers: steers}
	}
	s.verifier = sigv4.New(verify)
	s.metrics = newMetrics(o.Metrics)
	s.accessLog = newAccessLog(s)
	return s
}

// Handler returns the gateway as an HTTP handler, for tests and for servers
// that somebody else runs; Serve sets the limits of connections besides.
func (s *Server) Handler() http.Handler { return http.HandlerFunc(s.serveHTTP) }

// Serve answers on all doors until ctx ends, then lets running requests finish
// for the grace and closes. It owns the doors; Limits.Connections holds for each.
// It returns nil after a clean end.
func (s *Server) Serve(ctx context.Context, doors ...Door) error {
	const op = "s3gw: serve"
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	srv := &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: s.limits.HeaderTimeout,
		IdleTimeout:       s.limits.IdleTimeout,
		WriteTimeout:      s.limits.WriteStall, // per request; extended while an answer flows
		MaxHeaderBytes:    4 * s.limits.HeaderBytes,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		Protocols:         &protocols,
	}
	done := make(chan error, len(doors))
	for _, d := range doors {
		ln := netutil.LimitListener(d, s.limits.Connections)
		if d.TLS != nil {
			ln = tls.NewListener(ln, d.TLS)
		}
		go func() { done <- srv.Serve(ln) }() // ends by Shutdown or Close below
	}
	var failed error
	running := len(doors)
	select {
	case failed = <-done:
		running--
		srv.Close()
	case <-ctx.Done():
		s.trace.Close() // else they are waited for
		grace, cancel := context.WithTimeout(context.Background(), s.limits.ShutdownGrace)
		defer cancel()
		if failed = srv.Shutdown(grace); failed != nil {
			srv.Close()
		}
		if errors.Is(failed, context.DeadlineExceeded) {
			failed = nil
		}
	}
	for range running {
		<-done
	}
	if failed != nil {
		return ashlar.E(op, doors[0].Addr().String(), ashlar.Internal, failed)
	}
	return nil
}

// newRequestID returns 16 digits that no other request of this process has.
func (s *Server) newRequestID() string {
	var raw [8]byte
	n := s.idNext.Add(1)*0x9E3779B97F4A7C15 + s.idSeed // odd factor: a permutation
	binary.BigEndian.PutUint64(raw[:], n)
	var text [16]byte
	hex.Encode(text[:], raw[:])
	for i, c := range text {
		if c >= 'a' {
			text[i] = c - 'a' + 'A'
		}
	}
	return string(text[:])
}

// serveHTTP runs one request through the stations of the package comment.
func (s *Server) serveHTTP(w http.ResponseWriter, r *http.Request) {
	c := &call{s: s, w: w, r: r, ctx: r.Context(), id: s.newRequestID(), started: time.Now()}
	c.watch()
	c.identify()
	defer c.finish()
	if s.inflight.Add(1) > int64(s.limits.Requests) {
		c.fail(&s3.Error{Code: s3.SlowDown, RetryAfterSeconds: 1})
	} else if err := c.run(); err != nil {
		c.fail(err)
	}
}

// run verifies, parses, routes and serves. No step may be left out or moved.
func (c *call) run() (err error) {
	s, r := c.s, c.r
	c.continueEmpty()
	if n := headerBytes(r); n > s.limits.HeaderBytes {
		return s3.E(s3.RequestHeaderSectionTooLarge, "").With("MaxSizeAllowed", strconv.Itoa(s.limits.HeaderBytes))
	}
	if bucket, ok := c.websiteOfHost(); ok {
		return c.serveWebsite(bucket)
	}
	if c.query, err = s3.ParseQuery(r.URL.RawQuery); err != nil {
		return err
	}
	switch {
	case r.Method == http.MethodOptions:
		return c.preflight()
	case c.isQuery():
		return c.runQuery()
	case isForm(r, c.query):
		err = c.openForm()
	default:
		err = c.openSigned()
	}
	if err != nil {
		return err
	}
	c.allowOrigin()
	if err = c.identifySender(); err != nil {
		return err
	}
	if err = c.admitUser(); err != nil {
		return err
	}
	if c.route, err = s.routes.find(c); err != nil {
		return err
	}
	if err = c.checkSteering(); err != nil {
		return err
	}
	if err = c.openSession(); err != nil {
		return err
	}
	c.originate()
	if err = c.authorize(); err != nil {
		return err
	}
	if err = c.admitBucket(); err != nil {
		return err
	}
	c.admit()
	if c.body == nil { // a condition of a policy may have asked for a document
		if err = c.openBody(); err != nil {
			return err
		}
	}
	if err = c.checkExpectedOwner(); err != nil {
		return err
	}
	return c.veil(c.route.serve(c))
}

// openSigned verifies a request that is signed in its headers or its query,
// and finds what it names.
func (c *call) openSigned() (err error) {
	if sigv4.Anonymous(c.r, c.query) {
		c.auth, err = sigv4.AnonymousAuth(c.r)
	} else {
		c.auth, err = c.s.verifier.Verify(c.r, c.query)
	}
	if err != nil {
		return err
	}
	c.query = hoist(c.r.Header, c.query, c.auth)
	return c.parseTarget()
}

// continueEmpty answers an expectation that net/http ignores: that of an empty
// body. botocore sends it, and one that gets a final answer instead of 100
// Continue takes that answer's status line for the next request on the
// connection as well, whose own answer it then misreads and waits for ever.
func (c *call) continueEmpty() {
	if c.r.ContentLength == 0 && strings.EqualFold(c.r.Header.Get("Expect"), "100-continue") {
		c.w.WriteHeader(http.StatusContinue)
	}
}

// headerBytes measures the header block as it stood on the wire.
func headerBytes(r *http.Request) int {
	n := len(r.Method) + len(r.Proto) + len(r.Host) + len("Host: \r\n") + len("  \r\n")
	for name, values := range r.Header {
		for _, v := range values {
			n += len(name) + len(v) + len(": \r\n")
		}
	}
	return n
}

// hoist brings x-amz-* parameters of a presigned query, which are all signed,
// to where handlers look for them. A header that arrived wins. What is left of the
// query is returned: without a signature of version 2, and without the headers that
// botocore then repeats in it.
func hoist(h http.Header, q s3.Query, auth *sigv4.Auth) s3.Query {
	if !auth.Presigned {
		return q
	}
	for _, p := range q {
		low := strings.ToLower(p.Name)
		if !strings.HasPrefix(low, "x-amz-") || authParams[low] {
			continue
		}
		if name := http.CanonicalHeaderKey(p.Name); len(h[name]) == 0 {
			h[name] = []string{p.Value}
		}
	}
	if !auth.Version2 {
		return q
	}
	return slices.DeleteFunc(q, func(p s3.Param) bool {
		repeated := (p.Name == "content-type" || p.Name == "content-md5") && p.Value == h.Get(p.Name)
		return repeated || sigv4.CredentialOfVersion2(p.Name)
	})
}

var authParams = map[string]bool{
	"x-amz-algorithm": true, "x-amz-credential": true, "x-amz-date": true, "x-amz-expires": true,
	"x-amz-signedheaders": true, "x-amz-signature": true, "x-amz-security-token": true, "x-amz-content-sha256": true,
}
