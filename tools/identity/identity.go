// Package identity is what `ashlar user`, `ashlar key` and `ashlar policy` do: it speaks
// the IAM API of a gateway, with the keys of whoever runs the command, who needs the
// rights for it like everybody else. What it prints comes as values with a Render, so that
// the command can print JSON instead.
//
// It knows nothing that other clients of IAM do not know: aws-cli does the same, and more.
package identity

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// callMax bounds one call, answerBytesMax its answer.
const (
	callMax        = 30 * time.Second
	answerBytesMax = 4 << 20
)

// Client speaks to the IAM API of a gateway.
type Client struct {
	// URL is the gateway's address, Region what is signed for.
	URL, Region                 string
	AccessKey, SecretKey, Token string
}

// Error is an answer that says why not.
type Error struct {
	Code    string `xml:"Error>Code"`
	Message string `xml:"Error>Message"`
}

func (e *Error) Error() string { return e.Code + ": " + e.Message }

// params are names and values in turn; empty values are left out.
type params []string

// call sends an action and reads the answer into a struct whose tags begin below the root.
func (c *Client) call(ctx context.Context, action string, p params, into any) error {
	ctx, cancel := context.WithTimeout(ctx, callMax)
	defer cancel()
	form := url.Values{"Action": {action}, "Version": {"2010-05-08"}}
	for i := 0; i < len(p); i += 2 {
		if p[i+1] != "" {
			form.Set(p[i], p[i+1])
		}
	}
	body := []byte(form.Encode())
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(c.URL, "/")+"/", bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	sum := sha256.Sum256(body)
	keys := aws.Credentials{AccessKeyID: c.AccessKey, SecretAccessKey: c.SecretKey, SessionToken: c.Token}
	if err := v4.NewSigner().SignHTTP(ctx, keys, r, hex.EncodeToString(sum[:]), "iam", c.Region, time.Now()); err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return fmt.Errorf("nothing answers at %s (%w): is the gateway running?", c.URL, err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, answerBytesMax))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		e := &Error{}
		if xml.Unmarshal(answer, e) != nil || e.Code == "" {
			return fmt.Errorf("%s answers %s: is it a gateway of Ashlar?", c.URL, resp.Status)
		}
		return e
	}
	if into == nil {
		return nil
	}
	return xml.Unmarshal(answer, into)
}

// User is one user. AccessKey and SecretKey are those that were made with it.
type User struct {
	Name    string `json:"name" xml:"UserName"`
	ARN     string `json:"arn" xml:"Arn"`
	Created string `json:"created" xml:"CreateDate"`
	Key     *Key   `json:"key,omitempty" xml:"-"`
}

// Key is an access key; its secret is known when it was just made, and never again.
type Key struct {
	User    string `json:"user" xml:"UserName"`
	ID      string `json:"access_key" xml:"AccessKeyId"`
	Secret  string `json:"secret_key,omitempty" xml:"SecretAccessKey"`
	Status  string `json:"status" xml:"Status"`
	Created string `json:"created" xml:"CreateDate"`
}

// Users and Keys are lists.
type (
	Users struct {
		Users []User `json:"users"`
	}
	Keys struct {
		Keys []Key `json:"keys"`
	}
)

// Done says in a sentence what was done.
type Done struct {
	Done string `json:"done"`
}

// Render prints it for people; so everywhere below.
func (d *Done) Render(w io.Writer) error {
	_, err := fmt.Fprintln(w, d.Done)
	return err
}

// NewUser is a user that is to be made.
type NewUser struct {
	Name, Path string
	// Policies are names or ARNs, Groups names.
	Policies, Groups []string
	Key              bool // make an access key too
}

// CreateUser makes a user with what belongs to it. What fails half-way says what is there.
func (c *Client) CreateUser(ctx context.Context, n NewUser) (*User, error) {
	var arns []string
	for _, p := range n.Policies { // a wrong name is found before anything is made
		arn, err := c.policyARN(ctx, p)
		if err != nil {
			return nil, err
		}
		arns = append(arns, arn)
	}
	var made struct {
		User User `xml:"CreateUserResult>User"`
	}
	if err := c.call(ctx, "CreateUser", params{"UserName", n.Name, "Path", n.Path}, &made); err != nil {
		return nil, err
	}
	half := func(err error) (*User, error) {
		return nil, fmt.Errorf("the user %s was made, but not all that belongs to it: %w", n.Name, err)
	}
	for _, arn := range arns {
		if err := c.call(ctx, "AttachUserPolicy", params{"UserName", n.Name, "PolicyArn", arn}, nil); err != nil {
			return half(err)
		}
	}
	for _, g := range n.Groups {
		if err := c.call(ctx, "AddUserToGroup", params{"UserName", n.Name, "GroupName", g}, nil); err != nil {
			return half(err)
		}
	}
	if n.Key {
		k, err := c.CreateKey(ctx, n.Name)
		if err != nil {
			return half(err)
		}
		made.User.Key = k
	}
	return &made.User, nil
}

// Render implements the printing of a user that was made.
func (u *User) Render(w io.Writer) error {
	if _, err := fmt.Fprintf(w, "%s  %s\n", u.Name, u.ARN); err != nil {
		return err
	}
	if u.Key == nil {
		_, err := fmt.Fprintf(w, "Next:  ashlar key create %s\n", u.Name)
		return err
	}
	return u.Key.Render(w)
}

// ListUsers lists the users of the account.
func (c *Client) ListUsers(ctx context.Context) (*Users, error) {
	all := &Users{Users: []User{}}
	for marker := ""; ; {
		var page struct {
			Users  []User `xml:"ListUsersResult>Users>member"`
			Marker string `xml:"ListUsersResult>Marker"`
		}
		if err := c.call(ctx, "ListUsers", params{"Marker", marker}, &page); err != nil {
			return nil, err
		}
		all.Users = append(all.Users, page.Users...)
		if marker = page.Marker; marker == "" {
			return all, nil
		}
	}
}

// Render prints a table.
func (u *Users) Render(w io.Writer) error {
	if len(u.Users) == 0 {
		_, err := fmt.Fprintln(w, "no users: the account has root keys only\nNext:  ashlar user create NAME --key")
		return err
	}
	return table(w, "USER\tCREATED\tARN", func(line func(...any)) {
		for _, x := range u.Users {
			line(x.Name, x.Created, x.ARN)
		}
	})
}

// DeleteUser deletes a user that has nothing any more, or, with all, with what it has:
// its keys first, so that it is locked out at once.
func (c *Client) DeleteUser(ctx context.Context, name string, all bool) (*Done, error) {
	if all {
		if err := c.strip(ctx, name); err != nil {
			return nil, err
		}
	}
	if err := c.call(ctx, "DeleteUser", params{"UserName", name}, nil); err != nil {
		return nil, err
	}
	return &Done{"deleted the user " + name + "; gateways refuse its keys within two seconds"}, nil
}

// strip takes everything from a user.
func (c *Client) strip(ctx context.Context, name string) error {
	keys, err := c.ListKeys(ctx, name)
	if err != nil {
		return err
	}
	for _, k := range keys.Keys {
		if err := c.call(ctx, "DeleteAccessKey", params{"UserName", name, "AccessKeyId", k.ID}, nil); err != nil {
			return err
		}
	}
	var has struct {
		Inline   []string `xml:"ListUserPoliciesResult>PolicyNames>member"`
		Attached []string `xml:"ListAttachedUserPoliciesResult>AttachedPolicies>member>PolicyArn"`
		Groups   []string `xml:"ListGroupsForUserResult>Groups>member>GroupName"`
	}
	for _, list := range []string{"ListUserPolicies", "ListAttachedUserPolicies", "ListGroupsForUser"} {
		if err := c.call(ctx, list, params{"UserName", name, "MaxItems", "1000"}, &has); err != nil {
			return err
		}
	}
	for _, take := range []struct {
		action, param string
		names         []string
	}{{"DeleteUserPolicy", "PolicyName", has.Inline}, {"DetachUserPolicy", "PolicyArn", has.Attached}, {"RemoveUserFromGroup", "GroupName", has.Groups}} {
		for _, n := range take.names {
			if err := c.call(ctx, take.action, params{"UserName", name, take.param, n}, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// CreateKey gives a user an access key.
func (c *Client) CreateKey(ctx context.Context, user string) (*Key, error) {
	var made struct {
		Key Key `xml:"CreateAccessKeyResult>AccessKey"`
	}
	return &made.Key, c.call(ctx, "CreateAccessKey", params{"UserName", user}, &made)
}

// Render prints a key that was just made, fit for a shell.
func (k *Key) Render(w io.Writer) error {
	_, err := fmt.Fprintf(w, "export AWS_ACCESS_KEY_ID=%s AWS_SECRET_ACCESS_KEY=%s\nThe secret is shown now and never again.\n", k.ID, k.Secret)
	return err
}

// ListKeys lists the access keys of a user.
func (c *Client) ListKeys(ctx context.Context, user string) (*Keys, error) {
	var list struct {
		Keys []Key `xml:"ListAccessKeysResult>AccessKeyMetadata>member"`
	}
	err := c.call(ctx, "ListAccessKeys", params{"UserName", user}, &list)
	return &Keys{append([]Key{}, list.Keys...)}, err
}

// Render prints a table.
func (k *Keys) Render(w io.Writer) error {
	return table(w, "ACCESS KEY\tSTATUS\tCREATED", func(line func(...any)) {
		for _, x := range k.Keys {
			line(x.ID, x.Status, x.Created)
		}
	})
}

// DeleteKey deletes an access key of a user.
func (c *Client) DeleteKey(ctx context.Context, user, id string) (*Done, error) {
	if err := c.call(ctx, "DeleteAccessKey", params{"UserName", user, "AccessKeyId", id}, nil); err != nil {
		return nil, err
	}
	return &Done{"deleted the access key " + id + " of " + user + "; gateways refuse it within two seconds"}, nil
}
