package s3

import (
	"crypto/rand"
	"slices"
	"strconv"
	"strings"

	"ashlar/s3gw/notify"
)

// Bounds of a notification configuration.
const (
	notificationRulesMax = 100
	notificationIDMax    = 255
)

// notificationKinds are the elements of a rule and of its target, by kind.
var notificationKinds = [...]struct{ rule, target string }{
	notify.Queue: {"QueueConfiguration", "Queue"}, notify.Topic: {"TopicConfiguration", "Topic"},
	notify.Function: {"CloudFunctionConfiguration", "CloudFunction"},
}

// ParseNotification reads a NotificationConfiguration; it returns nil for one
// without rules. Rules without an id get one.
func ParseNotification(doc []byte) (*notify.Config, error) {
	root, err := parseXML(doc)
	if err != nil {
		return nil, err
	}
	if root.name != "NotificationConfiguration" {
		return nil, malformed("root " + root.name)
	}
	if len(root.children) == 0 {
		return nil, nil
	}
	if n := len(root.children); n > notificationRulesMax {
		return nil, E(InvalidRequest, strconv.Itoa(n)+" notification configurations: at most 100 are allowed.")
	}
	c := &notify.Config{}
	ids := map[string]bool{}
	for _, n := range root.children {
		if n.name == "EventBridgeConfiguration" {
			return nil, E(NotImplemented, "EventBridge is not implemented: name targets of the gateway as queues, topics or functions.")
		}
		r, err := parseNotificationRule(n)
		if err != nil {
			return nil, err
		}
		if ids[r.ID] {
			return nil, notificationArgument("Id", r.ID, "Same ID used for multiple configurations")
		}
		ids[r.ID] = true
		c.Rules = append(c.Rules, r)
	}
	if a, b := c.Overlap(); a != nil {
		return nil, notificationArgument(b.ID, strings.Join(b.Events, ", "),
			"Configurations overlap. Configurations on the same bucket cannot share a common event type: "+printable(a.ID)+" and "+printable(b.ID)+".")
	}
	return c, nil
}

func notificationArgument(name, value, message string) error {
	return E(InvalidArgument, message).With("ArgumentName", printable(name)).With("ArgumentValue", printable(value))
}

func parseNotificationRule(n *node) (r notify.Rule, err error) {
	kind := slices.IndexFunc(notificationKinds[:], func(k struct{ rule, target string }) bool { return k.rule == n.name })
	if kind < 0 {
		return r, malformed("element " + n.name)
	}
	r.Kind = notify.Kind(kind)
	seen := map[string]bool{}
	for _, c := range n.children {
		if seen[c.name] && c.name != "Event" {
			return r, malformed("element " + c.name)
		}
		seen[c.name] = true
		switch c.name {
		case "Id":
			r.ID, err = c.value()
		case notificationKinds[kind].target:
			r.ARN, err = c.value()
		case "Event":
			var event string
			event, err = c.value()
			r.Events = append(r.Events, event)
		case "Filter":
			r.Prefix, r.Suffix, err = parseKeyFilter(c)
		default:
			err = malformed("element " + c.name)
		}
		if err != nil {
			return r, err
		}
	}
	return r, checkNotificationRule(&r)
}

func checkNotificationRule(r *notify.Rule) error {
	if len(r.Events) == 0 {
		return malformed("a rule without events")
	}
	for _, e := range r.Events {
		if !notify.Known(e) {
			return notificationArgument("Event", e, "The event is not supported for notifications")
		}
	}
	if _, _, _, err := notify.ParseARN(r.ARN); err != nil {
		return notificationArgument("ARN", r.ARN, "The ARN could not be parsed: want arn:ashlar:sqs::NAME:KIND of a target of the gateway")
	}
	if len(r.ID) > notificationIDMax {
		return notificationArgument("Id", r.ID, "The Id is longer than 255 bytes")
	}
	if r.ID == "" {
		r.ID = rand.Text()
	}
	return nil
}

// parseKeyFilter reads a Filter: at most one rule for the beginning of keys and one
// for their end.
func parseKeyFilter(n *node) (prefix, suffix string, err error) {
	parts, err := n.fields("S3Key")
	if err != nil || parts["S3Key"] == nil {
		return "", "", err
	}
	seen := map[string]bool{}
	for _, c := range parts["S3Key"].children {
		if c.name != "FilterRule" {
			return "", "", malformed("element " + c.name)
		}
		texts, err := c.texts("Name", "Value")
		if err != nil {
			return "", "", err
		}
		name, value := strings.ToLower(texts["Name"]), texts["Value"]
		switch {
		case name != "prefix" && name != "suffix":
			return "", "", notificationArgument("FilterRule.Name", texts["Name"], "filter rule name must be either prefix or suffix")
		case seen[name]:
			return "", "", notificationArgument("FilterRule.Name", name, "Cannot specify more than one "+name+" rule in a filter.")
		case len(value) > KeyBytesMax || !validText(value):
			return "", "", notificationArgument("FilterRule.Value", value, "Size of filter rule value cannot exceed 1024 bytes in UTF-8 representation")
		case name == "prefix":
			prefix = value
		default:
			suffix = value
		}
		seen[name] = true
	}
	return prefix, suffix, nil
}

// Notification writes a NotificationConfiguration; nil is an empty one.
func (w *Writer) Notification(c *notify.Config) {
	w.Begin("NotificationConfiguration")
	if c != nil {
		for i := range c.Rules {
			w.notificationRule(&c.Rules[i])
		}
	}
	w.Close("NotificationConfiguration")
}

func (w *Writer) notificationRule(r *notify.Rule) {
	k := notificationKinds[r.Kind]
	w.Open(k.rule)
	w.Text("Id", r.ID)
	w.Text(k.target, r.ARN)
	for _, e := range r.Events {
		w.Text("Event", e)
	}
	if r.Prefix != "" || r.Suffix != "" {
		w.Open("Filter")
		w.Open("S3Key")
		for _, f := range [...]Field{{"Prefix", r.Prefix}, {"Suffix", r.Suffix}} {
			if f.Value != "" {
				w.Open("FilterRule")
				w.Raw("Name", f.Name)
				w.Text("Value", f.Value)
				w.Close("FilterRule")
			}
		}
		w.Close("S3Key")
		w.Close("Filter")
	}
	w.Close(k.rule)
}
