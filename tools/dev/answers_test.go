package dev

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestAnswers: a cluster of either form comes up with RGW's answers, and gives them.
func TestAnswers(t *testing.T) {
	one, many := testConfig(t), testConfig(t)
	one.Answers, many.Answers = "rgw", "rgw"
	for _, c := range []interface{ S3() string }{startOne(t, one), startMany(t, many)} {
		resp, err := http.Get(c.S3())
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK || !strings.Contains(string(body), "<Buckets></Buckets>") {
			t.Errorf("%s: %s %q %v", c.S3(), resp.Status, body, err)
		}
	}
	wrong := testConfig(t)
	wrong.Answers = "gcs"
	if _, err := wrong.readAccounts(); err == nil {
		t.Error("answers that nobody has are taken")
	}
}
