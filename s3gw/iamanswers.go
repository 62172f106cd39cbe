package s3gw

import (
	"strconv"

	"ashlar/s3gw/iam"
	"ashlar/s3gw/iam/directory"
	"ashlar/s3gw/s3"
)

// How IAM writes what there is.

// escapedDocument is a policy as IAM answers with it: escaped as in a URL.
func escapedDocument(text string) string { return string(s3.AppendEscaped(nil, text, false)) }

// writePrincipal writes a user, group or role as an element.
func (c *call) writePrincipal(q *query, w *s3.Writer, s directory.Sort, element string, p *directory.Principal) error {
	w.Open(element)
	w.Text("Path", p.Path)
	w.Text(word(s)+"Name", p.Name)
	w.Raw(word(s)+"Id", p.Id)
	w.Text("Arn", iam.ARN(q.account, s.String(), p.Path, p.Name))
	w.Raw("CreateDate", queryTime(p.CreatedNs))
	if s == directory.Role {
		w.Raw("AssumeRolePolicyDocument", escapedDocument(p.Trust))
		if p.Description != "" {
			w.Text("Description", p.Description)
		}
		w.Int("MaxSessionDuration", int64(p.SessionSecondsMax))
	}
	if p.Boundary != "" {
		arn, err := c.s.directory.PolicyARN(c.ctx, q.account, p.Boundary)
		if err != nil {
			return err
		}
		w.Open("PermissionsBoundary")
		w.Raw("PermissionsBoundaryType", "Policy")
		w.Text("PermissionsBoundaryArn", arn)
		w.Close("PermissionsBoundary")
	}
	w.Close(element)
	return nil
}

func writeKey(w *s3.Writer, user, id string, k *directory.AccessKey) {
	w.Text("UserName", user)
	w.Raw("AccessKeyId", id)
	w.Raw("Status", map[bool]string{true: "Active", false: "Inactive"}[k.Active])
	w.Raw("CreateDate", queryTime(k.CreatedNs))
}

func writePolicy(w *s3.Writer, element, arn string, p *directory.Policy, attachments int64) {
	w.Open(element)
	w.Text("PolicyName", p.Name)
	w.Raw("PolicyId", p.Id)
	w.Text("Arn", arn)
	w.Text("Path", p.Path)
	w.Raw("DefaultVersionId", versionID(p.Current))
	w.Int("AttachmentCount", attachments)
	w.Int("PermissionsBoundaryUsageCount", 0)
	w.Bool("IsAttachable", true)
	if p.Description != "" {
		w.Text("Description", p.Description)
	}
	w.Raw("CreateDate", queryTime(p.CreatedNs))
	w.Raw("UpdateDate", queryTime(max(p.UpdatedNs, p.CreatedNs)))
	w.Close(element)
}

func versionID(n uint32) string { return "v" + strconv.FormatUint(uint64(n), 10) }

func writePolicyVersion(w *s3.Writer, element string, v *directory.PolicyVersion, current, document bool) {
	w.Open(element)
	if document {
		w.Raw("Document", escapedDocument(v.Text))
	}
	w.Raw("VersionId", versionID(v.Number))
	w.Bool("IsDefaultVersion", current)
	w.Raw("CreateDate", queryTime(v.CreatedNs))
	w.Close(element)
}
