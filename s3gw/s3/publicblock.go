package s3

// publicBlocks are the switches of a public access block, in S3's order.
var publicBlocks = []string{"BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"}

// CheckPublicAccessBlock reads a PublicAccessBlockConfiguration and returns the
// document that is kept: every switch, in order.
func CheckPublicAccessBlock(doc []byte) ([]byte, error) {
	const name = "PublicAccessBlockConfiguration"
	root, err := parseXML(doc)
	if err != nil {
		return nil, err
	}
	if root.name != name {
		return nil, malformed("root " + root.name)
	}
	on := map[string]bool{}
	for _, known := range publicBlocks {
		on[known] = false
	}
	seen := map[string]bool{}
	for _, c := range root.children {
		v, err := c.value()
		if err != nil {
			return nil, err
		}
		if _, known := on[c.name]; !known || seen[c.name] || v != "true" && v != "false" && v != "TRUE" && v != "FALSE" {
			return nil, malformed("element " + c.name)
		}
		seen[c.name], on[c.name] = true, v == "true" || v == "TRUE"
	}
	var w Writer
	w.Begin(name)
	for _, known := range publicBlocks {
		w.Bool(known, on[known])
	}
	w.Close(name)
	return w.B, nil
}
