package s3gw

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"ashlar/s3gw/iam"
	"ashlar/s3gw/iam/directory"
	"ashlar/s3gw/iam/oidc"
	"ashlar/s3gw/s3"
)

// actions is the whole surface of IAM and STS, by name. A test walks it and proves that
// every line refuses who has no right.
var actions = func() map[string]*action {
	m := map[string]*action{}
	for _, list := range [][]action{userActions, groupActions, roleActions, policyActions, providerActions, stsActions,
		principalActions(directory.User), principalActions(directory.Group), principalActions(directory.Role)} {
		for i := range list {
			a := &list[i]
			if m[a.name] != nil || a.serve == nil || a.on == nil && !a.free {
				panic("s3gw: action " + a.name + " is there twice, or says not what it is about")
			}
			m[a.name] = a
		}
	}
	return m
}()

var userActions = []action{
	{name: "CreateUser", params: "UserName! Path PermissionsBoundary", on: onNew(directory.User), serve: createUser},
	{name: "GetUser", params: "UserName", on: onSelf, serve: getUser},
	{name: "ListUsers", params: "PathPrefix Marker MaxItems", on: onAll("user"), serve: listPrincipals(directory.User)},
	{name: "UpdateUser", params: "UserName! NewUserName NewPath", on: onRenamed(directory.User), serve: rename(directory.User)},
	{name: "DeleteUser", params: "UserName!", on: onThe(directory.User), serve: deletePrincipal(directory.User)},
	{name: "ListGroupsForUser", params: "UserName! Marker MaxItems", on: onThe(directory.User), serve: listGroupsForUser},
	{name: "CreateAccessKey", params: "UserName", on: onSelf, serve: createAccessKey},
	{name: "ListAccessKeys", params: "UserName Marker MaxItems", on: onSelf, serve: listAccessKeys},
	{name: "UpdateAccessKey", params: "UserName AccessKeyId! Status!", on: onSelf, serve: updateAccessKey},
	{name: "DeleteAccessKey", params: "UserName AccessKeyId!", on: onSelf, serve: deleteAccessKey},
}

var groupActions = []action{
	{name: "CreateGroup", params: "GroupName! Path", on: onNew(directory.Group), serve: createGroup},
	{name: "GetGroup", params: "GroupName! Marker MaxItems", on: onThe(directory.Group), serve: getGroup},
	{name: "ListGroups", params: "PathPrefix Marker MaxItems", on: onAll("group"), serve: listPrincipals(directory.Group)},
	{name: "UpdateGroup", params: "GroupName! NewGroupName NewPath", on: onRenamed(directory.Group), serve: rename(directory.Group)},
	{name: "DeleteGroup", params: "GroupName!", on: onThe(directory.Group), serve: deletePrincipal(directory.Group)},
	{name: "AddUserToGroup", params: "GroupName! UserName!", on: onThe(directory.Group), serve: func(c *call, q *query, _ *s3.Writer) error {
		return c.s.directory.Join(c.ctx, q.account, q.get("UserName"), q.get("GroupName"))
	}},
	{name: "RemoveUserFromGroup", params: "GroupName! UserName!", on: onThe(directory.Group), serve: func(c *call, q *query, _ *s3.Writer) error {
		return c.s.directory.Leave(c.ctx, q.account, q.get("UserName"), q.get("GroupName"))
	}},
}

var roleActions = []action{
	{name: "CreateRole", params: "RoleName! AssumeRolePolicyDocument! Path Description MaxSessionDuration PermissionsBoundary", on: onNew(directory.Role), serve: createRole},
	{name: "GetRole", params: "RoleName!", on: onThe(directory.Role), serve: getRole},
	{name: "ListRoles", params: "PathPrefix Marker MaxItems", on: onAll("role"), serve: listPrincipals(directory.Role)},
	{name: "UpdateRole", params: "RoleName! Description MaxSessionDuration", on: onThe(directory.Role), serve: updateRole},
	{name: "UpdateAssumeRolePolicy", params: "RoleName! PolicyDocument!", on: onThe(directory.Role), serve: func(c *call, q *query, _ *s3.Writer) error {
		return c.s.directory.SetTrust(c.ctx, q.account, q.get("RoleName"), q.get("PolicyDocument"))
	}},
	{name: "DeleteRole", params: "RoleName!", on: onThe(directory.Role), serve: deletePrincipal(directory.Role)},
	{name: "ListInstanceProfilesForRole", params: "RoleName! Marker MaxItems", on: onThe(directory.Role), serve: func(_ *call, _ *query, w *s3.Writer) error {
		w.Raw("InstanceProfiles", "") // there are none; programs look before they delete a role
		truncated(w, "")
		return nil
	}},
}

var policyActions = []action{
	{name: "CreatePolicy", params: "PolicyName! PolicyDocument! Path Description", on: onNewPolicy, serve: createPolicy},
	{name: "GetPolicy", params: "PolicyArn!", on: onPolicy, serve: getPolicy},
	{name: "ListPolicies", params: "Scope OnlyAttached PathPrefix PolicyUsageFilter Marker MaxItems", on: onAll("policy"), serve: listPolicies},
	{name: "DeletePolicy", params: "PolicyArn!", on: onPolicy, serve: func(c *call, q *query, _ *s3.Writer) error {
		return c.s.directory.DeletePolicy(c.ctx, q.account, q.get("PolicyArn"))
	}},
	{name: "CreatePolicyVersion", params: "PolicyArn! PolicyDocument! SetAsDefault", on: onPolicy, serve: createPolicyVersion},
	{name: "GetPolicyVersion", params: "PolicyArn! VersionId!", on: onPolicy, serve: getPolicyVersion},
	{name: "ListPolicyVersions", params: "PolicyArn! Marker MaxItems", on: onPolicy, serve: listPolicyVersions},
	{name: "SetDefaultPolicyVersion", params: "PolicyArn! VersionId!", on: onPolicy, serve: onVersion((*directory.Directory).SetCurrent)},
	{name: "DeletePolicyVersion", params: "PolicyArn! VersionId!", on: onPolicy, serve: onVersion((*directory.Directory).DeleteVersion)},
}

var providerActions = []action{
	{name: "CreateOpenIDConnectProvider", params: "Url! ClientIDList.member.# ThumbprintList.member.#", on: onNewProvider, serve: createProvider},
	{name: "GetOpenIDConnectProvider", params: "OpenIDConnectProviderArn!", on: onProvider, serve: getProvider},
	{name: "ListOpenIDConnectProviders", params: "", on: onAll("oidc-provider"), serve: listProviders},
	{name: "DeleteOpenIDConnectProvider", params: "OpenIDConnectProviderArn!", on: onProvider, serve: deleteProvider},
	{name: "AddClientIDToOpenIDConnectProvider", params: "OpenIDConnectProviderArn! ClientID!", on: onProvider, serve: changeAudiences(true)},
	{name: "RemoveClientIDFromOpenIDConnectProvider", params: "OpenIDConnectProviderArn! ClientID!", on: onProvider, serve: changeAudiences(false)},
}

// word is how a sort stands in the names of actions and parameters.
func word(s directory.Sort) string {
	return map[directory.Sort]string{directory.User: "User", directory.Group: "Group", directory.Role: "Role"}[s]
}

// principalActions are those that users, groups and roles have alike.
func principalActions(s directory.Sort) []action {
	name := word(s) + "Name"
	of := func(q *query) string { return q.get(name) }
	list := []action{
		{name: "Put" + word(s) + "Policy", params: name + "! PolicyName! PolicyDocument!", on: onThe(s), serve: func(c *call, q *query, _ *s3.Writer) error {
			return c.s.directory.PutInline(c.ctx, q.account, s, of(q), q.get("PolicyName"), q.get("PolicyDocument"))
		}},
		{name: "Get" + word(s) + "Policy", params: name + "! PolicyName!", on: onThe(s), serve: func(c *call, q *query, w *s3.Writer) error {
			text, err := c.s.directory.Inline(c.ctx, q.account, s, of(q), q.get("PolicyName"))
			w.Text(name, of(q))
			w.Text("PolicyName", q.get("PolicyName"))
			w.Raw("PolicyDocument", escapedDocument(text))
			return err
		}},
		{name: "Delete" + word(s) + "Policy", params: name + "! PolicyName!", on: onThe(s), serve: func(c *call, q *query, _ *s3.Writer) error {
			return c.s.directory.DeleteInline(c.ctx, q.account, s, of(q), q.get("PolicyName"))
		}},
		{name: "List" + word(s) + "Policies", params: name + "! Marker MaxItems", on: onThe(s), serve: listInline(s)},
		{name: "Attach" + word(s) + "Policy", params: name + "! PolicyArn!", on: onAttachment(s), serve: func(c *call, q *query, _ *s3.Writer) error {
			return c.s.directory.Attach(c.ctx, q.account, s, of(q), q.get("PolicyArn"))
		}},
		{name: "Detach" + word(s) + "Policy", params: name + "! PolicyArn!", on: onAttachment(s), serve: func(c *call, q *query, _ *s3.Writer) error {
			return c.s.directory.Detach(c.ctx, q.account, s, of(q), q.get("PolicyArn"))
		}},
		{name: "ListAttached" + word(s) + "Policies", params: name + "! PathPrefix Marker MaxItems", on: onThe(s), serve: listAttached(s)},
	}
	if s == directory.Group {
		return list
	}
	return append(list,
		action{name: "Put" + word(s) + "PermissionsBoundary", params: name + "! PermissionsBoundary!", on: onThe(s), serve: func(c *call, q *query, _ *s3.Writer) error {
			return c.s.directory.SetBoundary(c.ctx, q.account, s, of(q), q.get("PermissionsBoundary"))
		}},
		action{name: "Delete" + word(s) + "PermissionsBoundary", params: name + "!", on: onThe(s), serve: func(c *call, q *query, _ *s3.Writer) error {
			return c.s.directory.SetBoundary(c.ctx, q.account, s, of(q), "")
		}})
}

const boundaryKey = "iam:permissionsboundary"

// onNew is about a principal that is to be made.
func onNew(s directory.Sort) func(*call, *query) (subject, error) {
	return func(_ *call, q *query) (subject, error) {
		on := subject{arn: iam.ARN(q.account, s.String(), q.or("Path", "/"), q.get(word(s)+"Name"))}
		if b := q.get("PermissionsBoundary"); b != "" {
			on.values = map[string][]string{boundaryKey: {b}}
		}
		return on, nil
	}
}

// onAll is about all of a kind.
func onAll(kind string) func(*call, *query) (subject, error) {
	return func(_ *call, q *query) (subject, error) {
		return subject{arn: iam.ARN(q.account, kind, q.or("PathPrefix", "/"), "")}, nil
	}
}

// onThe is about a principal that may be there.
func onThe(s directory.Sort) func(*call, *query) (subject, error) {
	return func(c *call, q *query) (subject, error) { return c.principalSubject(q, s, q.get(word(s)+"Name")) }
}

// principalSubject is about a principal by its name; its boundary is a condition key, or
// the one that it is to have.
func (c *call) principalSubject(q *query, s directory.Sort, name string) (on subject, err error) {
	on.arn = iam.ARN(q.account, s.String(), "/", name)
	p, err := c.s.directory.Get(c.ctx, q.account, s, name)
	if s3.Classify(err) != nil && s3.Classify(err).Code == s3.NoSuchEntity {
		return on, nil // the handler says so to those who may know
	}
	if err != nil {
		return on, err
	}
	on.arn = iam.ARN(q.account, s.String(), p.Path, p.Name)
	bound := q.get("PermissionsBoundary")
	if bound == "" && p.Boundary != "" {
		if bound, err = c.s.directory.PolicyARN(c.ctx, q.account, p.Boundary); err != nil {
			return on, err
		}
	}
	if bound != "" {
		on.values = map[string][]string{boundaryKey: {bound}}
	}
	return on, nil
}

// onRenamed asks for the right to the name that is and, by demanding it at once, to the
// one that will be.
func onRenamed(s directory.Sort) func(*call, *query) (subject, error) {
	return func(c *call, q *query) (subject, error) {
		name := q.get(word(s) + "Name")
		on, err := c.principalSubject(q, s, name)
		if err != nil {
			return on, err
		}
		path := strings.TrimSuffix(strings.TrimPrefix(on.arn, iam.ARN(q.account, s.String(), "", "")), name)
		target := subject{arn: iam.ARN(q.account, s.String(), q.or("NewPath", path), q.or("New"+word(s)+"Name", name)), values: on.values}
		if target.arn != on.arn {
			err = c.demandOn(q.action.need(), target)
		}
		return on, err
	}
}

// onAttachment is about a principal, with the policy as a condition key.
func onAttachment(s directory.Sort) func(*call, *query) (subject, error) {
	return func(c *call, q *query) (subject, error) {
		on, err := c.principalSubject(q, s, q.get(word(s)+"Name"))
		values := map[string][]string{"iam:policyarn": {q.get("PolicyArn")}}
		for k, v := range on.values {
			values[k] = v
		}
		on.values = values
		return on, err
	}
}

// selfName is the user that a request is about where it names none: the sender.
func (c *call) selfName(q *query) string {
	if c.who.Kind == iam.User {
		return q.or("UserName", c.who.Name)
	}
	return q.get("UserName")
}

// onSelf is about a user that is named, or the sender.
func onSelf(c *call, q *query) (subject, error) {
	name := c.selfName(q)
	if name == "" {
		return subject{arn: c.who.ARN}, nil
	}
	return c.principalSubject(q, directory.User, name)
}

// userName is selfName of an action that needs a user.
func (c *call) userName(q *query) (string, error) {
	if name := c.selfName(q); name != "" {
		return name, nil
	}
	return "", s3.E(s3.ValidationError, "Must specify userName: the keys of an account's root are in gateway.toml, and a session has none.")
}

func onNewPolicy(_ *call, q *query) (subject, error) {
	return subject{arn: iam.ARN(q.account, "policy", q.or("Path", "/"), q.get("PolicyName"))}, nil
}

func onPolicy(_ *call, q *query) (subject, error) {
	return subject{arn: q.get("PolicyArn")}, nil
}

func providerARN(a *iam.Account, url string) string {
	return iam.ARN(a, "oidc-provider", "/", directory.ProviderName(url))
}

func onNewProvider(_ *call, q *query) (subject, error) {
	return subject{arn: providerARN(q.account, q.get("Url"))}, nil
}

func onProvider(_ *call, q *query) (subject, error) {
	return subject{arn: q.get("OpenIDConnectProviderArn")}, nil
}

// createUser, createGroup and createRole make a principal.
func createUser(c *call, q *query, w *s3.Writer) error {
	p, err := c.s.directory.Create(c.ctx, q.account, directory.User,
		&directory.Principal{Name: q.get("UserName"), Path: q.or("Path", "/"), Boundary: q.get("PermissionsBoundary")})
	if err != nil {
		return err
	}
	return c.writePrincipal(q, w, directory.User, "User", p)
}

func createGroup(c *call, q *query, w *s3.Writer) error {
	p, err := c.s.directory.Create(c.ctx, q.account, directory.Group, &directory.Principal{Name: q.get("GroupName"), Path: q.or("Path", "/")})
	if err != nil {
		return err
	}
	return c.writePrincipal(q, w, directory.Group, "Group", p)
}

func createRole(c *call, q *query, w *s3.Writer) error {
	seconds, err := q.number("MaxSessionDuration", directory.SessionSecondsDefault, directory.SessionSecondsDefault, directory.SessionSecondsMax)
	if err != nil {
		return err
	}
	p, err := c.s.directory.Create(c.ctx, q.account, directory.Role, &directory.Principal{
		Name: q.get("RoleName"), Path: q.or("Path", "/"), Boundary: q.get("PermissionsBoundary"), Trust: q.get("AssumeRolePolicyDocument"),
		Description: q.get("Description"), SessionSecondsMax: uint32(seconds)})
	if err != nil {
		return err
	}
	return c.writePrincipal(q, w, directory.Role, "Role", p)
}

func getUser(c *call, q *query, w *s3.Writer) error {
	name := c.selfName(q)
	switch {
	case name == "" && c.who.Kind == iam.Root:
		w.Open("User")
		w.Raw("UserId", q.account.ID)
		w.Text("Arn", c.who.ARN)
		w.Close("User")
		return nil
	case name == "":
		return s3.E(s3.ValidationError, "Must specify userName when calling with non-User credentials")
	}
	p, err := c.s.directory.Get(c.ctx, q.account, directory.User, name)
	if err != nil {
		return err
	}
	return c.writePrincipal(q, w, directory.User, "User", p)
}

func getRole(c *call, q *query, w *s3.Writer) error {
	p, err := c.s.directory.Get(c.ctx, q.account, directory.Role, q.get("RoleName"))
	if err != nil {
		return err
	}
	return c.writePrincipal(q, w, directory.Role, "Role", p)
}

func getGroup(c *call, q *query, w *s3.Writer) error {
	marker, limit, err := q.page()
	if err != nil {
		return err
	}
	p, err := c.s.directory.Get(c.ctx, q.account, directory.Group, q.get("GroupName"))
	if err != nil {
		return err
	}
	users, next, err := c.s.directory.Members(c.ctx, q.account, p.Name, marker, limit)
	if err != nil {
		return err
	}
	if err := c.writePrincipal(q, w, directory.Group, "Group", p); err != nil {
		return err
	}
	w.Open("Users")
	for _, u := range users {
		if err := c.writePrincipal(q, w, directory.User, "member", u); err != nil {
			return err
		}
	}
	w.Close("Users")
	truncated(w, next)
	return nil
}

func listPrincipals(s directory.Sort) func(*call, *query, *s3.Writer) error {
	return func(c *call, q *query, w *s3.Writer) error {
		marker, limit, err := q.page()
		if err != nil {
			return err
		}
		list, next, err := c.s.directory.List(c.ctx, q.account, s, q.or("PathPrefix", "/"), marker, limit)
		if err != nil {
			return err
		}
		w.Open(word(s) + "s")
		for _, p := range list {
			p.Boundary = "" // lists do not tell it
			if err := c.writePrincipal(q, w, s, "member", p); err != nil {
				return err
			}
		}
		w.Close(word(s) + "s")
		truncated(w, next)
		return nil
	}
}

func rename(s directory.Sort) func(*call, *query, *s3.Writer) error {
	return func(c *call, q *query, _ *s3.Writer) error {
		return c.s.directory.Rename(c.ctx, q.account, s, q.get(word(s)+"Name"), q.get("New"+word(s)+"Name"), q.get("NewPath"))
	}
}

func deletePrincipal(s directory.Sort) func(*call, *query, *s3.Writer) error {
	return func(c *call, q *query, _ *s3.Writer) error {
		return c.s.directory.Delete(c.ctx, q.account, s, q.get(word(s)+"Name"))
	}
}

func updateRole(c *call, q *query, _ *s3.Writer) error {
	var description *string
	if v, ok := q.values["Description"]; ok {
		description = &v
	}
	var seconds *uint32
	if _, ok := q.values["MaxSessionDuration"]; ok {
		n, err := q.number("MaxSessionDuration", 0, directory.SessionSecondsDefault, directory.SessionSecondsMax)
		if err != nil {
			return err
		}
		v := uint32(n)
		seconds = &v
	}
	return c.s.directory.UpdateRole(c.ctx, q.account, q.get("RoleName"), description, seconds)
}

func listGroupsForUser(c *call, q *query, w *s3.Writer) error {
	p, err := c.s.directory.Get(c.ctx, q.account, directory.User, q.get("UserName"))
	if err != nil {
		return err
	}
	names, next, err := slice(q, p.Groups, func(n string) string { return n })
	if err != nil {
		return err
	}
	w.Open("Groups")
	for _, name := range names {
		g, err := c.s.directory.Get(c.ctx, q.account, directory.Group, name)
		if err != nil {
			return err
		}
		if err := c.writePrincipal(q, w, directory.Group, "member", g); err != nil {
			return err
		}
	}
	w.Close("Groups")
	truncated(w, next)
	return nil
}

func listInline(s directory.Sort) func(*call, *query, *s3.Writer) error {
	return func(c *call, q *query, w *s3.Writer) error {
		p, err := c.s.directory.Get(c.ctx, q.account, s, q.get(word(s)+"Name"))
		if err != nil {
			return err
		}
		list, next, err := slice(q, p.Inline, (*directory.Document).GetName)
		if err != nil {
			return err
		}
		w.Open("PolicyNames")
		for _, doc := range list {
			w.Text("member", doc.Name)
		}
		w.Close("PolicyNames")
		truncated(w, next)
		return nil
	}
}

func listAttached(s directory.Sort) func(*call, *query, *s3.Writer) error {
	return func(c *call, q *query, w *s3.Writer) error {
		p, err := c.s.directory.Get(c.ctx, q.account, s, q.get(word(s)+"Name"))
		if err != nil {
			return err
		}
		list, next, err := slice(q, p.Attached, func(n string) string { return n })
		if err != nil {
			return err
		}
		w.Open("AttachedPolicies")
		for _, as := range list {
			arn, err := c.s.directory.PolicyARN(c.ctx, q.account, as)
			if err != nil {
				return err
			}
			if !strings.HasPrefix(arn[strings.Index(arn, ":policy")+len(":policy"):], q.or("PathPrefix", "/")) {
				continue
			}
			w.Open("member")
			w.Text("PolicyName", directory.AttachedName(as))
			w.Text("PolicyArn", arn)
			w.Close("member")
		}
		w.Close("AttachedPolicies")
		truncated(w, next)
		return nil
	}
}

func createAccessKey(c *call, q *query, w *s3.Writer) error {
	name, err := c.userName(q)
	if err != nil {
		return err
	}
	id, secret, k, err := c.s.directory.CreateKey(c.ctx, q.account, name)
	if err != nil {
		return err
	}
	w.Open("AccessKey")
	writeKey(w, name, id, k)
	w.Raw("SecretAccessKey", secret)
	w.Close("AccessKey")
	return nil
}

func listAccessKeys(c *call, q *query, w *s3.Writer) error {
	name, err := c.userName(q)
	if err != nil {
		return err
	}
	ids, keys, err := c.s.directory.Keys(c.ctx, q.account, name)
	if err != nil {
		return err
	}
	w.Text("UserName", name)
	w.Open("AccessKeyMetadata")
	for i, id := range ids {
		w.Open("member")
		writeKey(w, name, id, keys[i])
		w.Close("member")
	}
	w.Close("AccessKeyMetadata")
	truncated(w, "") // there are two at most
	return nil
}

func updateAccessKey(c *call, q *query, _ *s3.Writer) error {
	name, err := c.userName(q)
	if err != nil {
		return err
	}
	status := q.get("Status")
	if status != "Active" && status != "Inactive" {
		return s3.E(s3.ValidationError, "Status must be Active or Inactive.")
	}
	return c.s.directory.SetKey(c.ctx, q.account, name, q.get("AccessKeyId"), status == "Active")
}

func deleteAccessKey(c *call, q *query, _ *s3.Writer) error {
	name, err := c.userName(q)
	if err != nil {
		return err
	}
	return c.s.directory.DeleteKey(c.ctx, q.account, name, q.get("AccessKeyId"))
}

func createPolicy(c *call, q *query, w *s3.Writer) error {
	p, err := c.s.directory.CreatePolicy(c.ctx, q.account, q.get("PolicyName"), q.or("Path", "/"), q.get("Description"), q.get("PolicyDocument"))
	if err != nil {
		return err
	}
	writePolicy(w, "Policy", iam.ARN(q.account, "policy", p.Path, p.Name), p, 0)
	return nil
}

func getPolicy(c *call, q *query, w *s3.Writer) error {
	p, n, err := c.s.directory.Policy(c.ctx, q.account, q.get("PolicyArn"))
	if err != nil {
		return err
	}
	writePolicy(w, "Policy", q.get("PolicyArn"), p, n)
	return nil
}

func listPolicies(c *call, q *query, w *s3.Writer) error {
	scope, attached, filter := q.or("Scope", "All"), q.or("OnlyAttached", "false"), q.or("PolicyUsageFilter", "PermissionsPolicy")
	if !slices.Contains([]string{"All", "AWS", "Local"}, scope) || attached != "false" && attached != "true" || filter != "PermissionsPolicy" {
		return s3.E(s3.ValidationError, "Scope must be All, AWS or Local, OnlyAttached true or false, PolicyUsageFilter PermissionsPolicy.")
	}
	marker, limit, err := q.page()
	if err != nil {
		return err
	}
	var list []*directory.Policy
	next := ""
	if scope != "AWS" {
		if list, next, err = c.s.directory.Policies(c.ctx, q.account, q.or("PathPrefix", "/"), marker, limit); err != nil {
			return err
		}
	}
	w.Open("Policies")
	for _, p := range list {
		n, err := c.s.directory.Attachments(c.ctx, q.account, p.Name)
		if err != nil {
			return err
		}
		if attached == "false" || n > 0 {
			writePolicy(w, "member", iam.ARN(q.account, "policy", p.Path, p.Name), p, n)
		}
	}
	if scope != "Local" && attached == "false" && next == "" && q.or("PathPrefix", "/") == "/" {
		for _, p := range directory.Builtin() { // with the last page; there are few
			writePolicy(w, "member", directory.BuiltinARN(p), p, 0)
		}
	}
	w.Close("Policies")
	truncated(w, next)
	return nil
}

func createPolicyVersion(c *call, q *query, w *s3.Writer) error {
	current := q.or("SetAsDefault", "false")
	if current != "true" && current != "false" {
		return s3.E(s3.ValidationError, "SetAsDefault must be true or false.")
	}
	v, err := c.s.directory.AddVersion(c.ctx, q.account, q.get("PolicyArn"), q.get("PolicyDocument"), current == "true")
	if err != nil {
		return err
	}
	writePolicyVersion(w, "PolicyVersion", v, current == "true", false)
	return nil
}

// versionNumber reads VersionId, which is v and a number.
func (q *query) versionNumber() (uint32, error) {
	text, ok := strings.CutPrefix(q.get("VersionId"), "v")
	n, err := strconv.ParseUint(text, 10, 31)
	if !ok || err != nil || n == 0 {
		return 0, s3.E(s3.ValidationError, "VersionId must be v and a number.")
	}
	return uint32(n), nil
}

func getPolicyVersion(c *call, q *query, w *s3.Writer) error {
	n, err := q.versionNumber()
	if err != nil {
		return err
	}
	p, _, err := c.s.directory.Policy(c.ctx, q.account, q.get("PolicyArn"))
	if err != nil {
		return err
	}
	v := p.Version(n)
	if v == nil {
		return s3.E(s3.NoSuchEntity, "Policy "+q.get("PolicyArn")+" version "+q.get("VersionId")+" does not exist or is not attachable.")
	}
	writePolicyVersion(w, "PolicyVersion", v, n == p.Current, true)
	return nil
}

func listPolicyVersions(c *call, q *query, w *s3.Writer) error {
	p, _, err := c.s.directory.Policy(c.ctx, q.account, q.get("PolicyArn"))
	if err != nil {
		return err
	}
	w.Open("Versions")
	for _, v := range slices.Backward(p.Versions) {
		writePolicyVersion(w, "member", v, v.Number == p.Current, false)
	}
	w.Close("Versions")
	truncated(w, "") // there are five at most
	return nil
}

// onVersion serves an action on one version of a policy.
func onVersion(do func(*directory.Directory, context.Context, *iam.Account, string, uint32) error) func(*call, *query, *s3.Writer) error {
	return func(c *call, q *query, _ *s3.Writer) error {
		n, err := q.versionNumber()
		if err != nil {
			return err
		}
		return do(c.s.directory, c.ctx, q.account, q.get("PolicyArn"), n)
	}
}

// createProvider makes the account accept a provider. Which ones the gateways may ask is
// the operator's to say: an account must not make them call anywhere.
func createProvider(c *call, q *query, w *s3.Writer) error {
	url := q.get("Url")
	if err := oidc.CheckURL(url); err != nil {
		return s3.E(s3.InvalidInput, err.Error())
	}
	if !c.s.tokens.Allowed(url) {
		return s3.E(s3.AccessDenied, "The gateways do not ask "+url+": the operator has to add it to oidc-issuers in gateway.toml.")
	}
	err := c.s.directory.PutProvider(c.ctx, q.account, url, false, func(p *directory.Provider) error {
		p.Audiences = q.list("ClientIDList.member.", "")
		slices.Sort(p.Audiences)
		p.Audiences = slices.Compact(p.Audiences)
		return nil
	})
	if err != nil {
		return err
	}
	w.Text("OpenIDConnectProviderArn", providerARN(q.account, url))
	return nil
}

// provider finds the provider of the request's ARN.
func (c *call) provider(q *query) (*directory.Provider, error) {
	list, err := c.s.directory.Providers(c.ctx, q.account)
	if err != nil {
		return nil, err
	}
	arn := q.get("OpenIDConnectProviderArn")
	for _, p := range list {
		if providerARN(q.account, p.Url) == arn {
			return p, nil
		}
	}
	return nil, s3.E(s3.NoSuchEntity, "OpenIDConnect Provider not found for arn "+arn)
}

func getProvider(c *call, q *query, w *s3.Writer) error {
	p, err := c.provider(q)
	if err != nil {
		return err
	}
	w.Text("Url", directory.ProviderName(p.Url))
	w.Open("ClientIDList")
	for _, a := range p.Audiences {
		w.Text("member", a)
	}
	w.Close("ClientIDList")
	w.Raw("ThumbprintList", "")
	w.Raw("CreateDate", queryTime(p.CreatedNs))
	return nil
}

func listProviders(c *call, q *query, w *s3.Writer) error {
	list, err := c.s.directory.Providers(c.ctx, q.account)
	if err != nil {
		return err
	}
	w.Open("OpenIDConnectProviderList")
	for _, p := range list {
		w.Open("member")
		w.Text("Arn", providerARN(q.account, p.Url))
		w.Close("member")
	}
	w.Close("OpenIDConnectProviderList")
	return nil
}

func deleteProvider(c *call, q *query, _ *s3.Writer) error {
	p, err := c.provider(q)
	if err != nil {
		return err
	}
	return c.s.directory.DeleteProvider(c.ctx, q.account, p.Url)
}

func changeAudiences(add bool) func(*call, *query, *s3.Writer) error {
	return func(c *call, q *query, _ *s3.Writer) error {
		found, err := c.provider(q)
		if err != nil {
			return err
		}
		return c.s.directory.PutProvider(c.ctx, q.account, found.Url, true, func(p *directory.Provider) error {
			at, has := slices.BinarySearch(p.Audiences, q.get("ClientID"))
			switch {
			case add && !has:
				p.Audiences = slices.Insert(p.Audiences, at, q.get("ClientID"))
			case !add && has:
				p.Audiences = slices.Delete(p.Audiences, at, at+1)
			}
			return nil
		})
	}
}
