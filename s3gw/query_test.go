package s3gw

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"ashlar"
	"ashlar/daemon/meta/metatest"
	"ashlar/placement/topology"
	"ashlar/s3gw/iam"
	"ashlar/s3gw/iam/directory"
	"ashlar/s3gw/s3"
	"ashlar/s3gw/store"
)

// town is a gateway over the real store with a directory: the account of testKey, whose
// id is iam.RootID, and another one, 222, with the root key AKIDOTHER.
type town struct {
	*gateway
	directory *directory.Directory
	now       func() time.Time
}

// credential is what a request of a test is signed with.
type credential struct{ key, secret, token string }

var (
	rootOfHome  = credential{key: testKey, secret: testSecret}
	rootOfOther = credential{key: "AKIDOTHER", secret: "other"}
)

func startTown(t testing.TB, change ...func(*Options)) *town {
	t.Helper()
	w := &town{now: time.Now}
	m := &topology.Map{Epoch: 1, Groups: make([]topology.Group, 1), Shards: make([]topology.Shard, 2), Settings: topology.Settings{BucketShards: 2}}
	rows := metatest.NewModel()
	s := store.New(rows, &heap{data: map[ashlar.WriteID][]byte{}}, func() *topology.Map { return m }, store.Options{})
	accounts, err := iam.NewStatic(iam.KeyConfig{AccessKey: testKey, SecretKey: testSecret},
		[]iam.AccountConfig{{ID: "222", Keys: []iam.KeyConfig{{AccessKey: rootOfOther.key, SecretKey: rootOfOther.secret}}}})
	if err != nil {
		t.Fatal(err)
	}
	clock := func() time.Time { return w.now() }
	w.directory = directory.New(rows, accounts, directory.Options{Clock: clock})
	w.gateway = start(t, append([]func(*Options){func(o *Options) { o.Backend, o.Credentials, o.Clock = s, w.directory, clock }}, change...)...)
	t.Cleanup(s.Close)
	return w
}

// api sends an action of IAM or STS; params are names and values in turn.
func (w *town) api(t testing.TB, who credential, name string, params ...string) answer {
	t.Helper()
	service := "iam"
	if a := actions[name]; a != nil && a.sts {
		service = "sts"
	}
	return w.send(t, w.apiRequest(t, who, service, name, params...))
}

func (w *town) apiRequest(t testing.TB, who credential, service, name string, params ...string) *http.Request {
	t.Helper()
	form := url.Values{"Action": {name}, "Version": {map[string]string{"iam": iamVersion, "sts": stsVersion}[service]}}
	for i := 0; i < len(params); i += 2 {
		form.Add(params[i], params[i+1])
	}
	body := form.Encode()
	r, err := http.NewRequest("POST", w.url+"/", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	if who.key == "" {
		return r
	}
	sum := sha256.Sum256([]byte(body))
	cred := aws.Credentials{AccessKeyID: who.key, SecretAccessKey: who.secret, SessionToken: who.token}
	if err := v4.NewSigner().SignHTTP(context.Background(), cred, r, hex.EncodeToString(sum[:]), service, testRegion, w.now()); err != nil {
		t.Fatal(err)
	}
	return r
}

// wants checks status and code of an answer of the query APIs.
func (a answer) wants(t testing.TB, status int, code string) answer {
	t.Helper()
	var doc struct {
		XMLName xml.Name
		Error   struct{ Type, Code, Message string }
	}
	if err := xml.Unmarshal([]byte(a.body), &doc); err != nil {
		t.Errorf("%v in %s", err, a.body)
	}
	if a.status != status || doc.Error.Code != code || (status != 200) != (doc.XMLName.Local == "ErrorResponse") {
		t.Errorf("got %d %q, want %d %q: %.400s", a.status, doc.Error.Code, status, code, a.body)
	}
	return a
}

// field returns the text of the first element of a name.
func (a answer) field(name string) string {
	_, rest, _ := strings.Cut(a.body, "<"+name+">")
	text, _, _ := strings.Cut(rest, "</"+name+">")
	return text
}

// user makes a user with an access key and an inline policy, empty for none.
func (w *town) user(t testing.TB, name, policy string) credential {
	t.Helper()
	w.api(t, rootOfHome, "CreateUser", "UserName", name).wants(t, 200, "")
	if policy != "" {
		w.api(t, rootOfHome, "PutUserPolicy", "UserName", name, "PolicyName", "p", "PolicyDocument", policy).wants(t, 200, "")
	}
	a := w.api(t, rootOfHome, "CreateAccessKey", "UserName", name).wants(t, 200, "")
	return credential{key: a.field("AccessKeyId"), secret: a.field("SecretAccessKey")}
}

func (a answer) credential() credential {
	return credential{a.field("AccessKeyId"), a.field("SecretAccessKey"), a.field("SessionToken")}
}

// as sends an S3 request with a credential.
func (w *town) as(t testing.TB, who credential, method, target, body string) answer {
	t.Helper()
	return w.do(t, testCall{method: method, target: target, body: body, key: who.key, secret: who.secret, token: who.token, at: w.now()})
}

func allow(actions, resource string) string {
	return `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":` + actions + `,"Resource":"` + resource + `"}}`
}

// sample gives every parameter of an action some value.
func (a *action) sample() (params []string) {
	for _, p := range strings.Fields(a.params) {
		p, must := strings.CutSuffix(p, "!")
		if !must {
			continue
		}
		v := map[string]string{"PolicyArn": "arn:aws:iam::" + iam.RootID + ":policy/x", "RoleArn": "arn:aws:iam::" + iam.RootID + ":role/x",
			"OpenIDConnectProviderArn": "arn:aws:iam::" + iam.RootID + ":oidc-provider/x", "Url": "https://id.example", "WebIdentityToken": "a.b.c"}[p]
		if v == "" {
			v = "xx"
		}
		params = append(params, p, v)
	}
	return params
}

// TestEveryActionIsAuthorised walks the table of IAM and STS: who has no right, no
// credentials, or a signature that does not fit gets nothing.
func TestEveryActionIsAuthorised(t *testing.T) {
	w := startTown(t)
	none := w.user(t, "none", "")
	denied := w.user(t, "denied", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"},{"Effect":"Deny","Action":["iam:*","sts:*"],"Resource":"*"}]}`)
	plain := w.api(t, rootOfHome, "GetSessionToken").wants(t, 200, "").credential()
	for name, a := range actions {
		service := map[bool]string{false: "iam", true: "sts"}[a.sts]
		send := func(who credential, service string, tamper func(*http.Request)) answer {
			r := w.apiRequest(t, who, service, name, a.sample()...)
			if tamper != nil {
				tamper(r)
			}
			return w.send(t, r)
		}
		if !a.anonymous {
			send(credential{}, service, nil).wants(t, 403, "MissingAuthenticationToken")
		}
		send(credential{key: "AKIANOBODY", secret: "x"}, service, nil).wants(t, 403, "InvalidClientTokenId")
		send(credential{key: testKey, secret: "guess"}, service, nil).wants(t, 403, "SignatureDoesNotMatch")
		send(rootOfHome, "s3", nil).wants(t, 403, "SignatureDoesNotMatch")
		other := map[string]string{"iam": "sts", "sts": "iam"}[service]
		send(rootOfHome, other, nil).wantsNot(t, 200)
		send(rootOfHome, service, func(r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader(string(b)+"&X=y")), int64(len(b)+4)
		}).wants(t, 403, "SignatureDoesNotMatch")
		if a.free {
			continue
		}
		for _, who := range []credential{none, denied, plain} {
			send(who, service, nil).wants(t, 403, "AccessDenied")
		}
	}
	t.Logf("%d actions", len(actions))
}

func (a answer) wantsNot(t testing.TB, status int) {
	t.Helper()
	if a.status == status {
		t.Errorf("got %d: %.300s", a.status, a.body)
	}
}

// TestOnlyWhatIsUnderstoodIsDone: parameters, actions and versions that are not known
// are refused, and nothing is done.
func TestOnlyWhatIsUnderstoodIsDone(t *testing.T) {
	w := startTown(t)
	w.api(t, rootOfHome, "CreateUser", "UserName", "ann", "Tags.member.1.Key", "k").wants(t, 400, "ValidationError")
	w.api(t, rootOfHome, "CreateUser", "UserName", "ann", "UserName", "bob").wants(t, 400, "ValidationError")
	w.api(t, rootOfHome, "CreateUser").wants(t, 400, "ValidationError")
	w.api(t, rootOfHome, "CreateUzer", "UserName", "ann").wants(t, 400, "InvalidAction")
	w.api(t, rootOfHome, "AssumeRole", "RoleArn", "x", "RoleSessionName", "xx", "TokenCode", "1").wants(t, 400, "ValidationError")
	w.send(t, w.apiRequest(t, rootOfHome, "sts", "CreateUser", "UserName", "ann")).wants(t, 400, "InvalidAction")
	w.api(t, rootOfHome, "CreateUser", "UserName", "ann", "Path", "/"+strings.Repeat("x", queryBytesMax)+"/").wants(t, 400, "EntityTooLarge")
	w.api(t, rootOfHome, "ListUsers", "MaxItems", "0").wants(t, 400, "ValidationError")
	w.api(t, rootOfHome, "ListUsers", "Marker", "!").wants(t, 400, "ValidationError")
	if a := w.api(t, rootOfHome, "ListUsers").wants(t, 200, ""); strings.Contains(a.body, "<member>") {
		t.Error("a user was made:", a.body)
	}
	// What is no form of a query is S3's, which knows no such request.
	for _, change := range []func(*http.Request){
		func(r *http.Request) { r.URL.Path = "/bucket" }, func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") },
		func(r *http.Request) { r.URL.RawQuery = "Action=CreateUser" }, func(r *http.Request) { r.Host = "bucket." + testDomain },
	} {
		r := w.apiRequest(t, rootOfHome, "iam", "ListUsers")
		change(r)
		if a := w.send(t, r); a.code == "" || a.status == 200 {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
}

func TestIAMOverHTTP(t *testing.T) {
	w := startTown(t)
	api := func(status int, code, name string, params ...string) answer {
		t.Helper()
		return w.api(t, rootOfHome, name, params...).wants(t, status, code)
	}
	a := api(200, "", "CreateUser", "UserName", "ann", "Path", "/staff/")
	if got := a.field("Arn"); got != "arn:aws:iam::"+iam.RootID+":user/staff/ann" || !strings.HasPrefix(a.field("UserId"), "AIDA") ||
		!strings.Contains(a.body, `<CreateUserResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><CreateUserResult><User>`) || a.field("RequestId") == "" {
		t.Error(a.body)
	}
	api(409, "EntityAlreadyExists", "CreateUser", "UserName", "ann")
	api(404, "NoSuchEntity", "GetUser", "UserName", "bob")
	if a := api(200, "", "GetUser"); a.field("Arn") != "arn:aws:iam::"+iam.RootID+":root" {
		t.Error(a.body)
	}
	const doc = `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"s3:*","Resource":"arn:aws:s3:::a b/*"}}`
	api(400, "MalformedPolicyDocument", "PutUserPolicy", "UserName", "ann", "PolicyName", "p", "PolicyDocument", `{"Statement":[]}`)
	api(200, "", "PutUserPolicy", "UserName", "ann", "PolicyName", "p", "PolicyDocument", doc)
	back, err := url.PathUnescape(api(200, "", "GetUserPolicy", "UserName", "ann", "PolicyName", "p").field("PolicyDocument"))
	if err != nil || back != doc {
		t.Error(back, err)
	}
	if a := api(200, "", "ListUserPolicies", "UserName", "ann"); !strings.Contains(a.body, "<PolicyNames><member>p</member></PolicyNames><IsTruncated>false</IsTruncated>") {
		t.Error(a.body)
	}
	arn := api(200, "", "CreatePolicy", "PolicyName", "all", "PolicyDocument", doc).field("Arn")
	api(200, "", "AttachUserPolicy", "UserName", "ann", "PolicyArn", arn)
	if a := api(200, "", "GetPolicy", "PolicyArn", arn); a.field("AttachmentCount") != "1" || a.field("DefaultVersionId") != "v1" {
		t.Error(a.body)
	}
	if a := api(200, "", "ListAttachedUserPolicies", "UserName", "ann"); a.field("PolicyArn") != arn {
		t.Error(a.body)
	}
	api(409, "DeleteConflict", "DeletePolicy", "PolicyArn", arn)
	api(200, "", "CreatePolicyVersion", "PolicyArn", arn, "PolicyDocument", doc, "SetAsDefault", "true")
	if a := api(200, "", "GetPolicyVersion", "PolicyArn", arn, "VersionId", "v2"); a.field("IsDefaultVersion") != "true" {
		t.Error(a.body)
	}
	api(200, "", "DeletePolicyVersion", "PolicyArn", arn, "VersionId", "v1")
	api(200, "", "DetachUserPolicy", "UserName", "ann", "PolicyArn", arn)
	api(200, "", "DeletePolicy", "PolicyArn", arn)
	api(404, "NoSuchEntity", "GetPolicy", "PolicyArn", arn)
	if a := api(200, "", "ListPolicies", "Scope", "AWS"); !strings.Contains(a.body, "arn:aws:iam::aws:policy/AmazonS3FullAccess") {
		t.Error(a.body)
	}

	api(200, "", "CreateGroup", "GroupName", "g")
	api(200, "", "AddUserToGroup", "GroupName", "g", "UserName", "ann")
	if a := api(200, "", "GetGroup", "GroupName", "g"); !strings.Contains(a.body, "<UserName>ann</UserName>") {
		t.Error(a.body)
	}
	if a := api(200, "", "ListGroupsForUser", "UserName", "ann"); a.field("GroupName") != "g" {
		t.Error(a.body)
	}
	api(409, "DeleteConflict", "DeleteGroup", "GroupName", "g")

	key := api(200, "", "CreateAccessKey", "UserName", "ann").credential()
	if a := api(200, "", "ListAccessKeys", "UserName", "ann"); a.field("AccessKeyId") != key.key || strings.Contains(a.body, "Secret") {
		t.Error(a.body)
	}
	w.as(t, rootOfHome, "PUT", "/bucket", "").want(t, 200, "")
	w.as(t, key, "GET", "/bucket", "").want(t, 403, "AccessDenied")
	api(200, "", "PutGroupPolicy", "GroupName", "g", "PolicyName", "p", "PolicyDocument", allow(`"s3:ListBucket"`, "arn:aws:s3:::bucket"))
	w.as(t, key, "GET", "/bucket", "").want(t, 200, "")
	api(200, "", "UpdateUser", "UserName", "ann", "NewUserName", "anna")
	w.as(t, key, "GET", "/bucket", "").want(t, 200, "")
	if a := w.api(t, key, "GetCallerIdentity").wants(t, 200, ""); a.field("Arn") != "arn:aws:iam::"+iam.RootID+":user/staff/anna" || a.field("Account") != iam.RootID ||
		!strings.Contains(a.body, `xmlns="https://sts.amazonaws.com/doc/2011-06-15/"`) {
		t.Error(a.body)
	}
	api(200, "", "UpdateAccessKey", "UserName", "anna", "AccessKeyId", key.key, "Status", "Inactive")
	w.as(t, key, "GET", "/bucket", "").want(t, 403, "InvalidAccessKeyId")
	api(409, "DeleteConflict", "DeleteUser", "UserName", "anna")
	api(200, "", "DeleteAccessKey", "UserName", "anna", "AccessKeyId", key.key)
	api(200, "", "DeleteUserPolicy", "UserName", "anna", "PolicyName", "p")
	api(200, "", "RemoveUserFromGroup", "GroupName", "g", "UserName", "anna")
	api(200, "", "DeleteUser", "UserName", "anna")
	api(200, "", "DeleteGroupPolicy", "GroupName", "g", "PolicyName", "p")
	api(200, "", "DeleteGroup", "GroupName", "g")
}

// TestAUserStaysInItsAccount: whoever may do everything does it in its own account.
func TestAUserStaysInItsAccount(t *testing.T) {
	w := startTown(t)
	admin := w.user(t, "admin", allow(`"*"`, "*"))
	w.as(t, rootOfOther, "PUT", "/theirs", "").want(t, 200, "")
	w.as(t, admin, "GET", "/theirs", "").want(t, 403, "AccessDenied")
	w.api(t, rootOfOther, "CreateUser", "UserName", "eve").wants(t, 200, "")
	w.api(t, admin, "GetUser", "UserName", "eve").wants(t, 404, "NoSuchEntity")
	w.api(t, admin, "CreateAccessKey", "UserName", "eve").wants(t, 404, "NoSuchEntity")
	arn := w.api(t, rootOfOther, "CreatePolicy", "PolicyName", "p", "PolicyDocument", allow(`"*"`, "*")).wants(t, 200, "").field("Arn")
	for _, name := range []string{"GetPolicy", "DeletePolicy"} {
		w.api(t, admin, name, "PolicyArn", arn).wants(t, 404, "NoSuchEntity")
	}
	w.api(t, admin, "AttachUserPolicy", "UserName", "admin", "PolicyArn", arn).wants(t, 404, "NoSuchEntity")
	if a := w.api(t, admin, "ListUsers").wants(t, 200, ""); strings.Contains(a.body, "eve") {
		t.Error(a.body)
	}
	w.as(t, admin, "PUT", "/ours", "").want(t, 200, "")
	w.as(t, rootOfHome, "GET", "/ours", "").want(t, 200, "")
}

// TestSelfService: a policy can let users have their own keys and nobody else's, and
// create only what has a boundary.
func TestSelfService(t *testing.T) {
	w := startTown(t)
	ann := w.user(t, "ann", allow(`["iam:CreateAccessKey","iam:ListAccessKeys","iam:DeleteAccessKey","iam:GetUser"]`, "arn:aws:iam::"+iam.RootID+":user/${aws:username}"))
	w.user(t, "bob", "")
	id := w.api(t, ann, "CreateAccessKey").wants(t, 200, "").field("AccessKeyId")
	w.api(t, ann, "DeleteAccessKey", "AccessKeyId", id).wants(t, 200, "")
	if a := w.api(t, ann, "GetUser").wants(t, 200, ""); a.field("UserName") != "ann" {
		t.Error(a.body)
	}
	w.api(t, ann, "CreateAccessKey", "UserName", "bob").wants(t, 403, "AccessDenied")
	w.api(t, ann, "CreateAccessKey", "UserName", "nobody").wants(t, 403, "AccessDenied")
	w.api(t, ann, "PutUserPolicy", "UserName", "ann", "PolicyName", "q", "PolicyDocument", allow(`"*"`, "*")).wants(t, 403, "AccessDenied")
	w.api(t, ann, "AttachUserPolicy", "UserName", "ann", "PolicyArn", "arn:aws:iam::aws:policy/AdministratorAccess").wants(t, 403, "AccessDenied")

	bound := w.api(t, rootOfHome, "CreatePolicy", "PolicyName", "bound", "PolicyDocument", allow(`"s3:GetObject"`, "*")).wants(t, 200, "").field("Arn")
	chief := w.user(t, "chief", `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":["iam:CreateUser","iam:PutUserPolicy","iam:PutUserPermissionsBoundary","iam:CreateAccessKey","iam:UpdateUser"],
		"Resource":"arn:aws:iam::`+iam.RootID+`:user/dev/*","Condition":{"StringEquals":{"iam:PermissionsBoundary":"`+bound+`"}}}}`)
	w.api(t, chief, "CreateUser", "UserName", "dev1", "Path", "/dev/").wants(t, 403, "AccessDenied")
	w.api(t, chief, "CreateUser", "UserName", "dev1", "PermissionsBoundary", bound).wants(t, 403, "AccessDenied")
	w.api(t, chief, "CreateUser", "UserName", "dev1", "Path", "/dev/", "PermissionsBoundary", bound).wants(t, 200, "")
	w.api(t, chief, "PutUserPolicy", "UserName", "dev1", "PolicyName", "p", "PolicyDocument", allow(`"*"`, "*")).wants(t, 200, "")
	w.api(t, chief, "PutUserPolicy", "UserName", "chief", "PolicyName", "q", "PolicyDocument", allow(`"*"`, "*")).wants(t, 403, "AccessDenied")
	w.api(t, chief, "PutUserPermissionsBoundary", "UserName", "dev1", "PermissionsBoundary", "arn:aws:iam::aws:policy/AdministratorAccess").wants(t, 403, "AccessDenied")
	w.api(t, chief, "UpdateUser", "UserName", "dev1", "NewPath", "/ops/").wants(t, 403, "AccessDenied")
	dev := w.api(t, chief, "CreateAccessKey", "UserName", "dev1").wants(t, 200, "").credential()
	w.as(t, rootOfHome, "PUT", "/bucket", "").want(t, 200, "")
	w.as(t, rootOfHome, "PUT", "/bucket/k", "x").want(t, 200, "")
	w.as(t, dev, "GET", "/bucket/k", "").want(t, 200, "")
	w.as(t, dev, "PUT", "/bucket/k", "y").want(t, 403, "AccessDenied")
	w.api(t, dev, "CreateUser", "UserName", "x").wants(t, 403, "AccessDenied")
}

// TestUsersInEveryForm: a user's rights hold in every form of authentication, also where
// chunks are signed, in a presigned address and in a form of a page.
func TestUsersInEveryForm(t *testing.T) {
	w := startTown(t)
	w.as(t, rootOfHome, "PUT", "/bucket", "").want(t, 200, "")
	user := w.user(t, "ann", allow(`"s3:PutObject"`, "arn:aws:s3:::bucket/in/*"))
	role := w.trusting(t, "loader", "arn:aws:iam::"+iam.RootID+":user/ann", allow(`"s3:PutObject"`, "arn:aws:s3:::bucket/in/*"))
	session := w.api(t, user, "AssumeRole", "RoleArn", role, "RoleSessionName", "load").wants(t, 200, "").credential()
	scoped := w.api(t, user, "AssumeRole", "RoleArn", role, "RoleSessionName", "load", "Policy", allow(`"s3:PutObject"`, "arn:aws:s3:::bucket/in/mine/*")).wants(t, 200, "").credential()
	for i, f := range forms {
		for name, c := range map[string]struct {
			who  credential
			key  string
			code string
		}{
			"user":                {user, "in/a", ""},
			"user, elsewhere":     {user, "out/a", "AccessDenied"},
			"session":             {session, "in/b", ""},
			"session, elsewhere":  {session, "out/b", "AccessDenied"},
			"scoped":              {scoped, "in/mine/c", ""},
			"scoped, in the role": {scoped, "in/c", "AccessDenied"},
			"without its token":   {credential{key: session.key, secret: session.secret}, "in/a", "InvalidToken"},
			"another's token":     {credential{session.key, session.secret, scoped.token}, "in/a", "InvalidToken"},
			"a token too many":    {credential{user.key, user.secret, session.token}, "in/a", "InvalidToken"},
		} {
			call := testCall{method: "PUT", target: fmt.Sprintf("/bucket/%s%d", c.key, i), body: "content", key: c.who.key, secret: c.who.secret, token: c.who.token}
			if f.payload == streamTrailer {
				raw := binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE([]byte(call.body)))
				call.headers = map[string]string{"X-Amz-Trailer": "x-amz-checksum-crc32", "test-trailer": base64.StdEncoding.EncodeToString(raw)}
			}
			a := w.send(t, w.request(t, f, call))
			if c.code == "" && a.status != 200 || c.code != "" && a.code != c.code {
				t.Errorf("%s, %s: %d %s", f.name, name, a.status, a.body)
			}
		}
	}
	for name, c := range map[string]struct {
		who    credential
		key    string
		status int
	}{
		"user": {user, "in/f", 204}, "user, elsewhere": {user, "out/f", 403}, "session": {session, "in/f", 204}, "session, elsewhere": {session, "out/f", 403},
		"scoped": {scoped, "in/mine/f", 204}, "scoped, in the role": {scoped, "in/f", 403}, "without its token": {credential{key: session.key, secret: session.secret}, "in/f", 400},
	} {
		if a := w.postForm(t, c.who, c.key); a.status != c.status {
			t.Errorf("form, %s: %d %s", name, a.status, a.body)
		}
	}
}

// FuzzQueryForm reads any form: it names an action and only parameters that the action
// takes, or is refused in the words of IAM.
func FuzzQueryForm(f *testing.F) {
	for _, s := range []string{"Action=CreateUser&UserName=a&Version=2010-05-08", "Action=AssumeRole&RoleArn=x&RoleSessionName=y&PolicyArns.member.1.arn=z", "Action=", "a=%zz", "Action=CreateUser&UserName=a;b=c", "&&="} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, form string) {
		q := &query{}
		if err := q.parse([]byte(form)); err != nil {
			if code := s3.Classify(err).Code; code != s3.ValidationError && code != s3.InvalidAction {
				t.Fatal(err)
			}
			return
		}
		for name := range q.values {
			if base, _, _ := strings.Cut(name, "."); !strings.Contains(q.action.params, base) {
				t.Fatalf("%s takes %q", q.action.name, name)
			}
		}
	})
}
