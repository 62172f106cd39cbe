package policy

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The model is the evaluator once more, from AWS's description of policies and not from
// the code beside it: it reads the document into maps, walks every statement, compares
// texts one character after the other, and remembers nothing. It is slow, and it is meant
// to be obvious. It knows only policies that the parser accepts.

type asker struct {
	anonymous, root    bool
	account, canonical string
	arns               []string
	action, resource   string
	keys               map[string][]string // by name in lower case
}

func (q *asker) request() *Request {
	return &Request{Principal: Principal{Anonymous: q.anonymous, Root: q.root, Account: q.account, Canonical: q.canonical, ARNs: q.arns},
		Action: q.action, Resource: q.resource, Values: func(key string) []string { return q.keys[key] }}
}

// modelDecide says what a document says.
func modelDecide(text string, q *asker) Decision {
	var doc map[string]any
	if err := json.Unmarshal([]byte(text), &doc); err != nil {
		panic(err)
	}
	variables := doc["Version"] == "2012-10-17"
	statements, many := doc["Statement"].([]any)
	if !many {
		statements = []any{doc["Statement"]}
	}
	said := map[string]bool{}
	for _, s := range statements {
		statement := s.(map[string]any)
		how := modelPrincipal(statement, q)
		if how == "" || !modelAction(statement, q) || !modelResource(statement, q, variables) || !modelConditions(statement, q, variables) {
			continue
		}
		if statement["Effect"] == "Deny" {
			how = "deny"
		}
		said[how] = true
	}
	switch {
	case said["deny"]:
		return Deny
	case said["itself"]:
		return Allow
	case said["its account"]:
		return Delegated
	}
	return None
}

func anyTexts(v any) []string {
	if list, many := v.([]any); many {
		var out []string
		for _, x := range list {
			out = append(out, fmt.Sprint(x))
		}
		return out
	}
	return []string{fmt.Sprint(v)}
}

// modelPrincipal says whether a statement is about the asker "itself", about "its
// account" or, empty, about others. Without a principal it is about whom it belongs to.
func modelPrincipal(statement map[string]any, q *asker) string {
	if p, has := statement["Principal"]; has {
		return modelNamed(p, q)
	}
	if p, has := statement["NotPrincipal"]; has {
		if modelNamed(p, q) == "" {
			return "itself"
		}
		return ""
	}
	return "itself"
}

func modelNamed(p any, q *asker) string {
	if p == "*" {
		return "itself"
	}
	account := ""
	for kind, names := range p.(map[string]any) {
		for _, name := range anyTexts(names) {
			if kind == "AWS" && name == "*" {
				return "itself"
			}
			if q.anonymous {
				continue
			}
			if kind == "AWS" && slices.Contains(q.arns, name) && !strings.HasSuffix(name, ":root") {
				return "itself"
			}
			if kind == "AWS" && (name == q.account || name == "arn:aws:iam::"+q.account+":root") || kind == "CanonicalUser" && name == q.canonical {
				account = "its account"
			}
		}
	}
	if account != "" && q.root {
		return "itself"
	}
	return account
}

func modelAction(statement map[string]any, q *asker) bool {
	names, not := statement["NotAction"]
	if !not {
		names = statement["Action"]
	}
	for _, name := range anyTexts(names) {
		if modelLike(asWild(strings.ToLower(name)), strings.ToLower(q.action)) {
			return !not
		}
	}
	return not
}

func modelResource(statement map[string]any, q *asker, variables bool) bool {
	names, not := statement["NotResource"]
	if !not {
		names = statement["Resource"]
	}
	for _, name := range anyTexts(names) {
		if symbols, ok := modelFill(name, q, variables, true); ok && modelLike(symbols, q.resource) {
			return !not
		}
	}
	return not
}

// wild is a text in which some characters are wildcards.
type wild []struct {
	c      rune
	isWild bool
}

func asWild(text string) (w wild) {
	for _, c := range text {
		w = append(w, struct {
			c      rune
			isWild bool
		}{c, c == '*' || c == '?'})
	}
	return w
}

func asPlain(text string) (w wild) {
	for _, c := range text {
		w = append(w, struct {
			c      rune
			isWild bool
		}{c, false})
	}
	return w
}

// modelFill writes out the variables of a text. What comes out of one is no wildcard. It
// fails where a variable has no value, or several.
func modelFill(text string, q *asker, variables, wildcards bool) (out wild, ok bool) {
	plain := asPlain
	if wildcards {
		plain = asWild
	}
	for variables && strings.Contains(text, "${") {
		before, rest, _ := strings.Cut(text, "${")
		name, after, _ := strings.Cut(rest, "}")
		out, text = append(out, plain(before)...), after
		if name == "*" || name == "?" || name == "$" {
			out = append(out, asPlain(name)...)
			continue
		}
		name, fallback, hasFallback := strings.Cut(name, ",")
		values := q.keys[strings.ToLower(strings.TrimSpace(name))]
		switch {
		case len(values) == 1:
			out = append(out, asPlain(values[0])...)
		case len(values) == 0 && hasFallback:
			out = append(out, asPlain(strings.Trim(strings.TrimSpace(fallback), "'"))...)
		default:
			return nil, false
		}
	}
	return append(out, plain(text)...), true
}

// modelLike tries every length that a * can stand for.
func modelLike(w wild, text string) bool {
	if len(w) == 0 {
		return text == ""
	}
	if w[0].isWild && w[0].c == '*' {
		for i := 0; i <= len(text); i++ {
			if modelLike(w[1:], text[i:]) {
				return true
			}
		}
		return false
	}
	for _, c := range text {
		return (w[0].isWild || w[0].c == c) && modelLike(w[1:], text[len(string(c)):])
	}
	return false
}

// modelConditions: all operators, and under each all keys, must hold.
func modelConditions(statement map[string]any, q *asker, variables bool) bool {
	conditions, _ := statement["Condition"].(map[string]any)
	for operator, keys := range conditions {
		for key, values := range keys.(map[string]any) {
			if !modelCondition(operator, q.keys[strings.ToLower(key)], anyTexts(values), q, variables) {
				return false
			}
		}
	}
	return true
}

func modelCondition(operator string, have, want []string, q *asker, variables bool) bool {
	if operator == "Null" {
		return slices.Contains(want, strconv.FormatBool(len(have) == 0))
	}
	all, any := strings.HasPrefix(operator, "ForAllValues:"), strings.HasPrefix(operator, "ForAnyValue:")
	operator = strings.TrimPrefix(strings.TrimPrefix(operator, "ForAllValues:"), "ForAnyValue:")
	ifExists := strings.HasSuffix(operator, "IfExists")
	operator = strings.TrimSuffix(operator, "IfExists")
	negated := strings.Contains(operator, "Not")
	operator = strings.Replace(operator, "Not", "", 1)
	isOne := func(v string) bool {
		for _, w := range want {
			if modelCompare(operator, v, w, q, variables) {
				return true
			}
		}
		return false
	}
	switch {
	case len(have) == 0 && ifExists:
		return true
	case all:
		for _, v := range have {
			if isOne(v) == negated {
				return false
			}
		}
		return true
	case any:
		for _, v := range have {
			if isOne(v) != negated {
				return true
			}
		}
		return false
	}
	// A negated operator is the contrary of the other: nothing of what there is, is there.
	return slices.ContainsFunc(have, isOne) != negated
}

func modelCompare(operator, have, want string, q *asker, variables bool) bool {
	switch operator {
	case "StringEquals", "BinaryEquals":
		w, ok := modelFill(want, q, variables, false)
		return ok && modelLike(w, have)
	case "StringEqualsIgnoreCase":
		w, ok := modelFill(want, q, variables, false)
		text := ""
		for _, s := range w {
			text += string(s.c)
		}
		return ok && strings.EqualFold(text, have)
	case "StringLike":
		w, ok := modelFill(want, q, variables, true)
		return ok && modelLike(w, have)
	case "ArnEquals", "ArnLike":
		w, ok := modelFill(want, q, variables, true)
		return ok && modelARN(w, have)
	case "Bool":
		return strings.EqualFold(have, want)
	case "IpAddress":
		p, err := netip.ParsePrefix(want)
		if err != nil {
			a := netip.MustParseAddr(want)
			p = netip.PrefixFrom(a, a.BitLen())
		}
		a, err := netip.ParseAddr(have)
		return err == nil && p.Contains(a)
	}
	order, ok := 0, false
	if strings.HasPrefix(operator, "Numeric") {
		a, errA := strconv.ParseFloat(have, 64)
		b, errB := strconv.ParseFloat(want, 64)
		ok = errA == nil && errB == nil
		order = map[bool]int{true: 1}[a > b] - map[bool]int{true: 1}[a < b]
		operator = strings.TrimPrefix(operator, "Numeric")
	} else {
		a, errA := time.Parse(time.RFC3339, have)
		b, errB := time.Parse(time.RFC3339, want)
		ok = errA == nil && errB == nil
		order = a.Compare(b)
		operator = strings.TrimPrefix(operator, "Date")
	}
	return ok && map[string]bool{"Equals": order == 0, "LessThan": order < 0, "LessThanEquals": order <= 0, "GreaterThan": order > 0, "GreaterThanEquals": order >= 0}[operator]
}

// modelARN compares six parts; a wildcard ends at a colon, but in the last part.
func modelARN(w wild, have string) bool {
	for part := 0; part < 5; part++ {
		i := slices.IndexFunc(w, func(s struct {
			c      rune
			isWild bool
		}) bool {
			return s.c == ':'
		})
		left, right, ok := strings.Cut(have, ":")
		if i < 0 || !ok || !modelLike(w[:i], left) {
			return false
		}
		w, have = w[i+1:], right
	}
	return modelLike(w, have)
}

// dice makes policies and questions from a seed, of few words, so that they often meet.
type dice struct{ *rand.Rand }

func (d dice) of(words ...string) string { return words[d.IntN(len(words))] }

func (d dice) some(words ...string) any {
	list := []string{d.of(words...)}
	for d.IntN(3) == 0 {
		list = append(list, d.of(words...))
	}
	if len(list) == 1 && d.IntN(2) == 0 {
		return list[0]
	}
	return list
}

const (
	modelAccount = "111"
	modelUser    = "arn:aws:iam::111:user/ann"
	modelRole    = "arn:aws:iam::111:role/r"
	modelSession = "arn:aws:sts::111:assumed-role/r/s"
)

var modelCanonical = strings.Repeat("a", 64)

func (d dice) policy(kind Kind) string {
	doc := map[string]any{}
	if v := d.of("", "2012-10-17", "2012-10-17", "2008-10-17"); v != "" {
		doc["Version"] = v
	}
	var statements []any
	for n := 1 + d.IntN(3); n > 0; n-- {
		statements = append(statements, d.statement(kind))
	}
	doc["Statement"] = statements
	if len(statements) == 1 && d.IntN(2) == 0 {
		doc["Statement"] = statements[0]
	}
	text, err := json.Marshal(doc)
	if err != nil {
		panic(err)
	}
	return string(text)
}

func (d dice) statement(kind Kind) map[string]any {
	s := map[string]any{"Effect": d.of("Allow", "Allow", "Deny")}
	s[d.of("Action", "Action", "Action", "NotAction")] = d.some("s3:GetObject", "s3:getobject", "S3:Get*", "s3:PutObject", "s3:*", "*", "s3:?etObject", "s3:List*")
	s[d.of("Resource", "Resource", "Resource", "NotResource")] = d.some("arn:aws:s3:::b/*", "arn:aws:s3:::b", "arn:aws:s3:::b/x", "arn:aws:s3:::b/${aws:username}/*", "arn:aws:s3:::b/?",
		"arn:aws:s3:::b/${aws:username, 'x'}", "arn:aws:s3:::b/${*}", "arn:aws:s3:::b/a*a", "arn:aws:s3:::*", "*")
	if kind == Bucket {
		var p any = "*"
		if d.IntN(4) > 0 {
			m := map[string]any{"AWS": d.some("111", "222", "arn:aws:iam::111:root", modelUser, "arn:aws:iam::111:user/bob", modelRole, modelSession)}
			if d.IntN(4) == 0 {
				m["CanonicalUser"] = d.some(modelCanonical, strings.Repeat("b", 64))
			}
			if d.IntN(8) == 0 {
				m["AWS"] = "*"
			}
			p = m
		}
		s[d.of("Principal", "Principal", "Principal", "Principal", "NotPrincipal")] = p
	}
	if d.IntN(2) == 0 {
		conditions := map[string]any{}
		for n := 1 + d.IntN(2); n > 0; n-- {
			operator, keys := d.condition()
			conditions[operator] = keys
		}
		s["Condition"] = conditions
	}
	return s
}

// condition makes an operator with its keys and values.
func (d dice) condition() (string, map[string]any) {
	operator, key := "", ""
	var values any
	switch d.IntN(7) {
	case 0:
		operator, key = d.of("StringEquals", "StringNotEquals", "StringLike", "StringNotLike", "StringEqualsIgnoreCase", "StringNotEqualsIgnoreCase", "BinaryEquals"), d.of("s3:prefix", "S3:Prefix", "aws:username")
		values = d.some("a", "A", "a*", "?", "ann", "${aws:username}", "${aws:username}*", "${s3:delimiter, 'a'}", "a${*}", "")
	case 1:
		operator, key = d.of("StringEquals", "StringLike", "StringNotEquals"), "s3:RequestObjectTagKeys"
		values = d.some("a", "b", "c*", "*")
	case 2:
		operator, key = "Numeric"+d.of("Equals", "NotEquals", "LessThan", "LessThanEquals", "GreaterThan", "GreaterThanEquals"), "s3:max-keys"
		values = d.some("10", "10.0", "9", "-1", "0")
	case 3:
		operator, key = "Date"+d.of("Equals", "NotEquals", "LessThan", "LessThanEquals", "GreaterThan", "GreaterThanEquals"), "aws:CurrentTime"
		values = d.some("2026-01-01T00:00:00Z", "2026-01-01T01:00:00+01:00", "2025-06-01T00:00:00Z")
	case 4:
		operator, key = d.of("IpAddress", "NotIpAddress"), "aws:SourceIp"
		values = d.some("10.0.0.0/8", "10.1.2.3", "0.0.0.0/0", "2001:db8::/32")
	case 5:
		operator, key = d.of("ArnEquals", "ArnLike", "ArnNotEquals", "ArnNotLike"), "aws:PrincipalArn"
		values = d.some(modelUser, "arn:aws:iam::111:user/*", "arn:aws:iam::*:user/ann", "arn:aws:*:ann", "arn:*:*:*:*:*", "arn:aws:iam::111:user/${aws:username}")
	default:
		operator, key = "Bool", "aws:SecureTransport"
		values = d.some("true", "false", "TRUE")
	}
	if d.IntN(8) == 0 {
		return "Null", map[string]any{key: d.some("true", "false")}
	}
	if d.IntN(4) == 0 {
		operator += "IfExists"
	}
	if key == "s3:RequestObjectTagKeys" || d.IntN(8) == 0 {
		operator = d.of("", "ForAllValues:", "ForAnyValue:") + operator
	}
	return operator, map[string]any{key: values}
}

func (d dice) asker() *asker {
	q := &asker{action: d.of("s3:GetObject", "s3:PutObject", "s3:ListBucket", "s3:DeleteBucket"),
		resource: d.of("arn:aws:s3:::b", "arn:aws:s3:::b/x", "arn:aws:s3:::b/aba", "arn:aws:s3:::b/*", "arn:aws:s3:::b/ann/k", "arn:aws:s3:::c/x"), keys: map[string][]string{}}
	switch d.IntN(5) {
	case 0:
		q.anonymous = true
	case 1:
		q.root, q.arns = true, []string{"arn:aws:iam::111:root"}
	case 2:
		q.arns = []string{modelSession, modelRole}
	default:
		q.arns = []string{modelUser}
	}
	if !q.anonymous {
		q.account, q.canonical = modelAccount, modelCanonical
	}
	for key, values := range map[string][]string{
		"s3:prefix": {"a", "ab", "A", "ann", "a*", "*", ""}, "aws:username": {"ann", "a", "*", "a*"}, "s3:max-keys": {"10", "9.5", "ten"},
		"aws:currenttime": {"2026-01-01T00:00:00Z", "2025-01-01T00:00:00Z", "soon"}, "aws:sourceip": {"10.1.2.3", "11.0.0.1", "2001:db8::1", "x"},
		"aws:principalarn": {modelUser, modelRole, "arn:aws:iam::222:user/ann", "arn"}, "aws:securetransport": {"true", "false"}, "s3:delimiter": {"a", "/"},
	} {
		if d.IntN(3) > 0 {
			q.keys[key] = []string{d.of(values...)}
		}
	}
	for _, tag := range []string{"a", "b", "cd"} {
		if d.IntN(2) == 0 {
			q.keys["s3:requestobjecttagkeys"] = append(q.keys["s3:requestobjecttagkeys"], tag)
		}
	}
	return q
}

// agree runs one seed and returns what the document says.
func agree(t *testing.T, seed uint64) Decision {
	t.Helper()
	d := dice{rand.New(rand.NewPCG(seed, 0))}
	kind := Kind(d.IntN(2))
	text := d.policy(kind)
	p, err := Parse([]byte(text), kind, "b")
	if err != nil {
		t.Fatalf("seed %d: %s: %v", seed, text, err)
	}
	var last Decision
	for range 4 {
		q := d.asker()
		got, want := p.Evaluate(q.request()), modelDecide(text, q)
		if got != want {
			t.Fatalf("seed %d: %v, and the model says %v\n%s\n%+v", seed, got, want, text, *q)
		}
		last = got
	}
	return last
}

// TestEvaluatorAgreesWithTheModel: random policies and questions; every answer must
// come often enough to mean something.
func TestEvaluatorAgreesWithTheModel(t *testing.T) {
	const cases = 5_000
	start := rand.Uint64()
	t.Logf("seeds from %d", start)
	seen := map[Decision]int{}
	for i := range uint64(cases) {
		seen[agree(t, start+i)]++
	}
	for _, d := range []Decision{None, Delegated, Allow, Deny} {
		if seen[d] < cases/200 {
			t.Errorf("%v came %d times in %d", d, seen[d], cases)
		}
	}
	t.Log(seen)
}

// FuzzEvaluatorAgainstModel is the same for as long as one likes.
func FuzzEvaluatorAgainstModel(f *testing.F) {
	f.Add(uint64(1))
	f.Fuzz(func(t *testing.T, seed uint64) { agree(t, seed) })
}
