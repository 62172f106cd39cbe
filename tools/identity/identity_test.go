package identity

import (
	"errors"
	"net/http/httptest"
	"strings"
	"testing"

	"ashlar/daemon/meta/metatest"
	"ashlar/placement/topology"
	"ashlar/s3gw"
	"ashlar/s3gw/iam"
	"ashlar/s3gw/iam/directory"
	"ashlar/s3gw/store"
)

// start serves a gateway without stripes, and returns the root's client.
func start(t *testing.T) *Client {
	t.Helper()
	rows := metatest.NewModel()
	accounts, err := iam.NewStatic(iam.KeyConfig{AccessKey: "root", SecretKey: "secret"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	backend := store.New(rows, nil, func() *topology.Map { return nil }, store.Options{})
	t.Cleanup(backend.Close)
	server := httptest.NewServer(s3gw.New(s3gw.Options{Backend: backend, Credentials: directory.New(rows, accounts, directory.Options{})}).Handler())
	t.Cleanup(server.Close)
	return &Client{URL: server.URL, Region: "us-east-1", AccessKey: "root", SecretKey: "secret"}
}

func code(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	if err != nil {
		return err.Error()
	}
	return "OK"
}

func TestTheCommands(t *testing.T) {
	c, ctx := start(t), t.Context()
	if u, err := c.ListUsers(ctx); err != nil || len(u.Users) != 0 {
		t.Fatal(u, err)
	}
	if _, err := c.CreateUser(ctx, NewUser{Name: "ann", Policies: []string{"Nothing"}}); err == nil || !strings.Contains(err.Error(), "ashlar policy list") {
		t.Error(err)
	}
	p, err := c.CreatePolicy(ctx, "mine", `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"iam:ListUsers","Resource":"*"}}`)
	if err != nil {
		t.Fatal(err)
	}
	u, err := c.CreateUser(ctx, NewUser{Name: "ann", Path: "/staff/", Policies: []string{"mine", "AmazonS3ReadOnlyAccess"}, Key: true})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(u.ARN, ":user/staff/ann") || u.Key == nil || len(u.Key.Secret) != 40 {
		t.Errorf("%+v", u)
	}
	ann := &Client{URL: c.URL, Region: c.Region, AccessKey: u.Key.ID, SecretKey: u.Key.Secret}
	if list, err := ann.ListUsers(ctx); err != nil || len(list.Users) != 1 || list.Users[0].Name != "ann" {
		t.Error(list, err)
	}
	if _, err := ann.CreateKey(ctx, "ann"); code(err) != "AccessDenied" {
		t.Error(err)
	}
	if shown, err := c.ShowPolicy(ctx, "mine"); err != nil || !strings.Contains(shown.Document, "iam:ListUsers") {
		t.Error(shown, err)
	}
	if _, err := c.Attach(ctx, "mine", Whom{User: "ann", Group: "g"}, true); err == nil {
		t.Error("two at once")
	}
	if _, err := c.DeletePolicy(ctx, p.ARN); code(err) != "DeleteConflict" {
		t.Error(err)
	}
	if _, err := c.Attach(ctx, "mine", Whom{User: "ann"}, true); err != nil {
		t.Error(err)
	}
	if _, err := ann.ListUsers(ctx); code(err) != "AccessDenied" {
		t.Error(err)
	}
	keys, err := c.ListKeys(ctx, "ann")
	if err != nil || len(keys.Keys) != 1 || keys.Keys[0].Secret != "" {
		t.Error(keys, err)
	}
	if _, err := c.DeleteUser(ctx, "ann", false); code(err) != "DeleteConflict" {
		t.Error(err)
	}
	if _, err := c.DeleteUser(ctx, "ann", true); err != nil {
		t.Error(err)
	}
	if _, err := ann.ListUsers(ctx); code(err) != "InvalidClientTokenId" {
		t.Error(err)
	}
	if _, err := c.DeletePolicy(ctx, "mine"); err != nil {
		t.Error(err)
	}
}

func TestWhatPeopleSee(t *testing.T) {
	var b strings.Builder
	k := &Key{User: "ann", ID: "AKIA1", Secret: "s3cr3t", Status: "Active", Created: "2026-11-28T12:00:00Z"}
	if err := (&User{Name: "ann", ARN: "arn:aws:iam::1:user/ann", Key: k}).Render(&b); err != nil {
		t.Fatal(err)
	}
	if err := (&Keys{Keys: []Key{{ID: "AKIA1", Status: "Active", Created: "2026-11-28T12:00:00Z"}}}).Render(&b); err != nil {
		t.Fatal(err)
	}
	want := `ann  arn:aws:iam::1:user/ann
export AWS_ACCESS_KEY_ID=AKIA1 AWS_SECRET_ACCESS_KEY=s3cr3t
The secret is shown now and never again.
ACCESS KEY  STATUS  CREATED
AKIA1       Active  2026-11-28T12:00:00Z
`
	if b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
}
