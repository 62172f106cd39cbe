package main

import (
	"io"
	"os/exec"
	"testing"

	"ashlar"
	"ashlar/tools/dev"
)

// TestDevCluster lets the clients that are installed judge a cluster as the
// README starts it: in one process, with its default code and shape.
func TestDevCluster(t *testing.T) {
	cfg := dev.Defaults()
	cfg.Dir = t.TempDir()
	cfg.S3, cfg.Admin = "127.0.0.1:0", "127.0.0.1:0"
	cfg.DiskBytes = 1 * ashlar.GiB
	cfg.AccessKey, cfg.SecretKey = "clients", "clients-secret"
	cluster, err := dev.Start(t.Context(), cfg, dev.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	for _, client := range []struct {
		name, debian string
		installed    func() bool
	}{
		{"aws", "awscli", inPath("aws")},
		{"boto3", "python3-boto3", func() bool {
			_, err := (&suite{ctx: t.Context(), out: io.Discard}).pythonWithBoto3()
			return err == nil
		}},
		{"rclone", "rclone", inPath("rclone")},
		{"s3cmd", "s3cmd", inPath("s3cmd")},
		{"restic", "restic", inPath("restic")},
		{"s3fs", "s3fs", inPath("s3fs")},
		{"aws-sdk-go-v2", "", func() bool { return true }},
		{"minio-go", "", func() bool { return true }},
	} {
		t.Run(client.name, func(t *testing.T) {
			if !client.installed() {
				t.Skipf("not installed: apt-get install %s", client.debian)
			}
			failed, err := run(t.Context(), options{
				endpoint: cluster.S3(), accessKey: cfg.AccessKey, secretKey: cfg.SecretKey,
				aws: "aws", rclone: "rclone", treeFiles: 1010, only: client.name,
			}, testLog{t})
			if err != nil || failed > 0 {
				t.Fatalf("%d checks failed, %v", failed, err)
			}
		})
	}
}

func inPath(name string) func() bool {
	return func() bool {
		_, err := exec.LookPath(name)
		return err == nil
	}
}

// testLog writes the suite's lines to the test's log.
type testLog struct{ t *testing.T }

var _ io.Writer = testLog{}

func (l testLog) Write(p []byte) (int, error) {
	l.t.Logf("%s", p)
	return len(p), nil
}
