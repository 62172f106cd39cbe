package s3

import (
	"crypto/md5"
	"encoding/base64"
	"net/http"
	"strings"

	"ashlar/s3gw/store"
)

// The headers of encryption. Those of a customer's key have the prefix
// X-Amz-Copy-Source- where they are about the source of a copy.
const (
	headerSSE       = "X-Amz-Server-Side-Encryption"
	headerKMSKey    = headerSSE + "-Aws-Kms-Key-Id"
	customerMode    = "Server-Side-Encryption-Customer-Algorithm"
	customerKey     = "Server-Side-Encryption-Customer-Key"
	customerMD5     = "Server-Side-Encryption-Customer-Key-Md5"
	amz             = "X-Amz-"
	amzCopySource   = "X-Amz-Copy-Source-"
	customerKeySize = 32
)

func invalidHeader(name, value, message string) *Error {
	return E(InvalidArgument, message).With("ArgumentName", strings.ToLower(name)).With("ArgumentValue", printable(value))
}

// EncryptionOf reads the encryption that a write asks for, nil if it asks for
// none.
func EncryptionOf(h http.Header) (*store.Encryption, error) {
	customer, err := CustomerKeyOf(h, false)
	if err != nil {
		return nil, err
	}
	mode, asked := h[headerSSE]
	key, named := h[headerKMSKey]
	switch {
	case customer != nil && (asked || named):
		return nil, invalidHeader(headerSSE, strings.Join(mode, ","), "Server Side Encryption with Customer provided key is incompatible with the encryption method specified")
	case customer != nil:
		return &store.Encryption{Mode: store.SSEC, CustomerKey: customer}, nil
	case !asked && named:
		return nil, invalidHeader(headerKMSKey, key[0], "Server Side Encryption with AWS KMS managed key requires HTTP header x-amz-server-side-encryption : aws:kms")
	case !asked:
		return nil, nil
	}
	e := &store.Encryption{Mode: store.EncryptionMode(mode[0])}
	switch {
	case e.Mode == store.SSES3 && named:
		return nil, invalidHeader(headerKMSKey, key[0], "Server Side Encryption with AWS KMS managed key requires HTTP header x-amz-server-side-encryption : aws:kms")
	case e.Mode == store.SSEKMS && named:
		e.KeyID = key[0]
	case e.Mode != store.SSES3 && e.Mode != store.SSEKMS:
		return nil, invalidHeader(headerSSE, mode[0], "The encryption method specified is not supported")
	}
	return e, nil
}

// CustomerKeyOf reads the customer's key of a request, or of the source of a
// copy; nil if there is none.
func CustomerKeyOf(h http.Header, copySource bool) ([]byte, error) {
	prefix := amz
	if copySource {
		prefix = amzCopySource
	}
	mode, hasMode := h[prefix+customerMode]
	key, hasKey := h[prefix+customerKey]
	sum, hasSum := h[prefix+customerMD5]
	switch {
	case !hasMode && !hasKey && !hasSum:
		return nil, nil
	case !hasMode:
		return nil, invalidHeader(prefix+customerMode, "", "Requests specifying Server Side Encryption with Customer provided keys must provide a valid encryption algorithm.")
	case mode[0] != "AES256":
		return nil, E(InvalidEncryptionAlgorithmError, "").With("ArgumentName", strings.ToLower(prefix+customerMode)).With("ArgumentValue", printable(mode[0]))
	case !hasKey:
		return nil, invalidHeader(prefix+customerKey, "", "Requests specifying Server Side Encryption with Customer provided keys must provide an appropriate secret key.")
	case !hasSum:
		return nil, invalidHeader(prefix+customerMD5, "", "Requests specifying Server Side Encryption with Customer provided keys must provide the client calculated MD5 of the secret key.")
	}
	raw, err := base64.StdEncoding.DecodeString(key[0])
	if err != nil || len(raw) != customerKeySize {
		return nil, invalidHeader(prefix+customerKey, "", "The secret key was invalid for the specified algorithm.")
	}
	if want := md5.Sum(raw); sum[0] != base64.StdEncoding.EncodeToString(want[:]) {
		return nil, invalidHeader(prefix+customerMD5, sum[0], "The calculated MD5 hash of the key did not match the hash that was provided.")
	}
	return raw, nil
}

// EncryptionHeaders returns the headers that tell of an encryption. Those of a
// customer's key repeat what the request said.
func EncryptionHeaders(e *store.Encryption, request http.Header) []Field {
	switch {
	case e == nil:
		return nil
	case e.Mode == store.SSEC:
		var sum string
		if v := request[amz+customerMD5]; len(v) > 0 {
			sum = v[0]
		}
		return []Field{{amz + customerMode, "AES256"}, {amz + customerMD5, sum}}
	case e.Mode == store.SSEKMS:
		return []Field{{headerSSE, string(e.Mode)}, {headerKMSKey, e.KeyID}}
	}
	return []Field{{headerSSE, string(e.Mode)}}
}

// AsksForEncryption reports whether a request has a header that only writes may
// have.
func AsksForEncryption(h http.Header) bool { return len(h[headerSSE])+len(h[headerKMSKey]) > 0 }

// ParseEncryption reads a ServerSideEncryptionConfiguration: the default of a
// bucket.
func ParseEncryption(doc []byte) (*store.Encryption, error) {
	root, err := parseXML(doc)
	if err != nil {
		return nil, err
	}
	if root.name != "ServerSideEncryptionConfiguration" || len(root.children) != 1 || root.children[0].name != "Rule" {
		return nil, malformed("want ServerSideEncryptionConfiguration with one Rule")
	}
	var e *store.Encryption
	for _, c := range root.children[0].children {
		switch {
		case c.name == "ApplyServerSideEncryptionByDefault" && e == nil:
			v, err := c.values("SSEAlgorithm", "KMSMasterKeyID")
			if err != nil {
				return nil, err
			}
			e = &store.Encryption{Mode: store.EncryptionMode(v["SSEAlgorithm"]), KeyID: v["KMSMasterKeyID"]}
		case c.name == "BucketKeyEnabled": // a saving of calls to AWS's key service
		default:
			return nil, malformed("element " + c.name)
		}
	}
	switch {
	case e == nil || e.Mode != store.SSES3 && e.Mode != store.SSEKMS:
		return nil, malformed("encryption algorithm")
	case e.Mode == store.SSES3 && e.KeyID != "":
		return nil, E(InvalidArgument, "a KMSMasterKeyID is not applicable if the default sse algorithm is not aws:kms")
	}
	return e, nil
}

// Encryption writes a ServerSideEncryptionConfiguration.
func (w *Writer) Encryption(e *store.Encryption) {
	w.Begin("ServerSideEncryptionConfiguration")
	w.Open("Rule")
	w.Open("ApplyServerSideEncryptionByDefault")
	w.Raw("SSEAlgorithm", string(e.Mode))
	if e.KeyID != "" {
		w.Text("KMSMasterKeyID", e.KeyID)
	}
	w.Close("ApplyServerSideEncryptionByDefault")
	w.Bool("BucketKeyEnabled", false)
	w.Close("Rule")
	w.Close("ServerSideEncryptionConfiguration")
}
