package session

import (
	"crypto/rand"
	"reflect"
	"strings"
	"testing"
)

func secret() (s Secret) {
	rand.Read(s[:])
	return s
}

func TestTokens(t *testing.T) {
	s := secret()
	want := Claims{Sort: OfRole, Account: strings.Repeat("a", 64), Name: "reader", ID: "AROAX", Session: "s", Scoped: true, Scope: []string{`{"Statement":[]}`}, Issued: 5, Expires: 9}
	made, err := New(s, want)
	if err != nil {
		t.Fatal(err)
	}
	got, cred, err := Open(s, made.AccessKey, made.Token)
	if err != nil || !reflect.DeepEqual(got, want) || cred != made {
		t.Fatalf("%+v %+v %v", got, cred, err)
	}
	if len(made.AccessKey) != 20 || len(made.SecretKey) != 40 || !strings.HasPrefix(made.AccessKey, Prefix) {
		t.Error(made)
	}
	again, err := New(s, want)
	if err != nil || again.Token == made.Token || again.AccessKey == made.AccessKey || again.SecretKey == made.SecretKey {
		t.Error("two sessions have something in common", err)
	}
	if strings.Contains(made.Token, "reader") {
		t.Error("the token can be read")
	}
	for name, bad := range map[string][2]string{
		"another's key":  {again.AccessKey, made.Token},
		"no token":       {made.AccessKey, ""},
		"cut":            {made.AccessKey, made.Token[:len(made.Token)-4]},
		"longer":         {made.AccessKey, made.Token + "AAAA"},
		"padded":         {made.AccessKey, made.Token + "="},
		"another form":   {made.AccessKey, "B" + made.Token[1:]},
		"only the salt":  {made.AccessKey, made.Token[:34]},
		"too long":       {made.AccessKey, strings.Repeat("A", TokenBytesMax+4)},
		"not base64":     {made.AccessKey, "!" + made.Token[1:]},
		"a changed byte": {made.AccessKey, made.Token[:60] + flip(made.Token[60]) + made.Token[61:]},
	} {
		if _, _, err := Open(s, bad[0], bad[1]); err != ErrInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := Open(secret(), made.AccessKey, made.Token); err != ErrInvalid {
		t.Error("another secret opened it:", err)
	}
}

func flip(c byte) string {
	if c == 'A' {
		return "B"
	}
	return "A"
}

// FuzzOpen: nothing that was not sealed opens.
func FuzzOpen(f *testing.F) {
	s := secret()
	made, err := New(s, Claims{Sort: OfUser})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(made.AccessKey, made.Token[:40])
	f.Add("ASIA", "AQ")
	f.Fuzz(func(t *testing.T, key, token string) {
		if _, _, err := Open(s, key, token); err == nil && token != made.Token {
			t.Fatalf("%q opened", token)
		}
	})
}
