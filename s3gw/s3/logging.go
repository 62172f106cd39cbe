package s3

// Logging says where the access log of a bucket is delivered.
type Logging struct {
	Bucket, Prefix string
	// Dates is empty for keys of the simple form; DatesOfEvents or DatesOfDelivery has
	// them begin with account, region, bucket and a date.
	Dates string
}

// The dates by which keys of logs can be parted.
const (
	DatesOfEvents   = "EventTime"
	DatesOfDelivery = "DeliveryTime"
)

// ParseLogging reads a BucketLoggingStatus; nil is one that turns logging off.
func ParseLogging(doc []byte) (*Logging, error) {
	root, err := parseXML(doc)
	if err != nil {
		return nil, err
	}
	if root.name != "BucketLoggingStatus" {
		return nil, malformed("root " + root.name)
	}
	parts, err := root.fields("LoggingEnabled")
	if err != nil || parts["LoggingEnabled"] == nil {
		return nil, err
	}
	parts, err = parts["LoggingEnabled"].fields("TargetBucket", "TargetPrefix", "TargetGrants", "TargetObjectKeyFormat")
	if err != nil {
		return nil, err
	}
	if parts["TargetBucket"] == nil || parts["TargetPrefix"] == nil {
		return nil, malformed("no TargetBucket or TargetPrefix")
	}
	if g := parts["TargetGrants"]; g != nil && len(g.children) > 0 {
		return nil, E(NotImplemented, "TargetGrants is not implemented: let a policy of the target bucket say who may read the logs.")
	}
	l := &Logging{}
	if l.Bucket, err = parts["TargetBucket"].value(); err != nil {
		return nil, err
	}
	if l.Prefix, err = parts["TargetPrefix"].value(); err != nil {
		return nil, err
	}
	if len(l.Prefix) > logPrefixMax || !validText(l.Prefix) {
		return nil, E(InvalidArgument, "The TargetPrefix is too long for the keys that begin with it.").
			With("ArgumentName", "TargetPrefix").With("ArgumentValue", printable(l.Prefix))
	}
	if f := parts["TargetObjectKeyFormat"]; f != nil {
		l.Dates, err = parseKeyFormat(f)
	}
	return l, err
}

// logPrefixMax leaves room in a key for what stands behind the prefix.
const logPrefixMax = 800

func parseKeyFormat(n *node) (dates string, err error) {
	parts, err := n.fields("SimplePrefix", "PartitionedPrefix")
	switch {
	case err != nil:
		return "", err
	case len(parts) != 1:
		return "", malformed("want SimplePrefix or PartitionedPrefix")
	case parts["SimplePrefix"] != nil:
		_, err = parts["SimplePrefix"].fields()
		return "", err
	}
	texts, err := parts["PartitionedPrefix"].texts("PartitionDateSource")
	if err != nil {
		return "", err
	}
	switch dates, given := texts["PartitionDateSource"]; {
	case !given:
		return DatesOfDelivery, nil
	case dates == DatesOfEvents, dates == DatesOfDelivery:
		return dates, nil
	}
	return "", malformed("PartitionDateSource")
}

// Logging writes a BucketLoggingStatus; nil is one without logging.
func (w *Writer) Logging(l *Logging) {
	w.Begin("BucketLoggingStatus")
	if l != nil {
		w.Open("LoggingEnabled")
		w.Text("TargetBucket", l.Bucket)
		w.Text("TargetPrefix", l.Prefix)
		if l.Dates != "" {
			w.Open("TargetObjectKeyFormat")
			w.Open("PartitionedPrefix")
			w.Raw("PartitionDateSource", l.Dates)
			w.Close("PartitionedPrefix")
			w.Close("TargetObjectKeyFormat")
		}
		w.Close("LoggingEnabled")
	}
	w.Close("BucketLoggingStatus")
}

// DeliversLogs reports whether the ACL of a bucket lets access logs be delivered
// into it.
func (a ACL) DeliversLogs() bool {
	has := map[Permission]bool{}
	for _, g := range a {
		if g.Grantee == logDelivery {
			has[g.Permission] = true
		}
	}
	return has[FullControl] || has[Write] && has[ReadACP]
}
