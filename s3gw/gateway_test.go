package s3gw

import (
	"reflect"
	"testing"
	"time"

	"ashlar/s3gw/notify/courier"
)

// TestConfigReachesTheServer: nothing that gateway.toml says is left on the way.
func TestConfigReachesTheServer(t *testing.T) {
	list := []string{"x"}
	c := Config{
		Name: "x", Region: "x", AnyRegion: true, SignatureV2: true, Domains: list, WebsiteDomains: list, PlainCustomerKeys: true, ObjectOwnership: "x", Answers: "x",
		Notify: []courier.Config{{}}, NotifyQueueMax: 1, OIDCIssuers: list, Rates: &Rates{}, LifecycleDay: Duration(time.Second),
	}
	// What these name is opened or looked up first.
	elsewhere := map[string]bool{"Listen": true, "TLSListen": true, "TLSCertFile": true, "TLSKeyFile": true, "MetricsListen": true, "Placement": true,
		"RootAccessKey": true, "RootSecretFile": true, "KeyringFile": true, "Vault": true, "Accounts": true}
	given := 0
	for f, v := range reflect.ValueOf(c).Fields() {
		if !elsewhere[f.Name] && v.IsZero() {
			t.Errorf("%s is not part of this test", f.Name)
		}
		if !v.IsZero() {
			given++
		}
	}
	taken := 0
	for _, v := range reflect.ValueOf(c.options()).Fields() {
		if !v.IsZero() {
			taken++
		}
	}
	if taken != given {
		t.Errorf("of %d settings %d reach the server", given, taken)
	}
}
