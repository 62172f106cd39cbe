package identity

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"text/tabwriter"
)

// Policy is a managed policy; Document is set where one is shown.
type Policy struct {
	Name     string `json:"name" xml:"PolicyName"`
	ARN      string `json:"arn" xml:"Arn"`
	Version  string `json:"version" xml:"DefaultVersionId"`
	Attached int    `json:"attached" xml:"AttachmentCount"`
	Document string `json:"document,omitempty" xml:"-"`
}

// Policies is a list.
type Policies struct {
	Policies []Policy `json:"policies"`
}

// ListPolicies lists the managed policies, those that every account has at the end.
func (c *Client) ListPolicies(ctx context.Context) (*Policies, error) {
	all := &Policies{}
	for marker := ""; ; {
		var page struct {
			Policies []Policy `xml:"ListPoliciesResult>Policies>member"`
			Marker   string   `xml:"ListPoliciesResult>Marker"`
		}
		if err := c.call(ctx, "ListPolicies", params{"Marker", marker}, &page); err != nil {
			return nil, err
		}
		all.Policies = append(all.Policies, page.Policies...)
		if marker = page.Marker; marker == "" {
			return all, nil
		}
	}
}

// Render prints a table.
func (p *Policies) Render(w io.Writer) error {
	return table(w, "POLICY\tVERSION\tATTACHED\tARN", func(line func(...any)) {
		for _, x := range p.Policies {
			line(x.Name, x.Version, x.Attached, x.ARN)
		}
	})
}

// policyARN finds the ARN of a policy by its name; an ARN stays.
func (c *Client) policyARN(ctx context.Context, name string) (string, error) {
	if strings.HasPrefix(name, "arn:") {
		return name, nil
	}
	all, err := c.ListPolicies(ctx)
	if err != nil {
		return "", err
	}
	for _, p := range all.Policies {
		if p.Name == name {
			return p.ARN, nil
		}
	}
	return "", fmt.Errorf("there is no policy %q: `ashlar policy list` shows those that there are", name)
}

// CreatePolicy makes a managed policy of a document.
func (c *Client) CreatePolicy(ctx context.Context, name, document string) (*Policy, error) {
	var made struct {
		Policy Policy `xml:"CreatePolicyResult>Policy"`
	}
	return &made.Policy, c.call(ctx, "CreatePolicy", params{"PolicyName", name, "PolicyDocument", document}, &made)
}

// ShowPolicy returns a policy with the text of the version that holds.
func (c *Client) ShowPolicy(ctx context.Context, name string) (*Policy, error) {
	arn, err := c.policyARN(ctx, name)
	if err != nil {
		return nil, err
	}
	var found struct {
		Policy Policy `xml:"GetPolicyResult>Policy"`
	}
	if err := c.call(ctx, "GetPolicy", params{"PolicyArn", arn}, &found); err != nil {
		return nil, err
	}
	var text struct {
		Document string `xml:"GetPolicyVersionResult>PolicyVersion>Document"`
	}
	if err := c.call(ctx, "GetPolicyVersion", params{"PolicyArn", arn, "VersionId", found.Policy.Version}, &text); err != nil {
		return nil, err
	}
	found.Policy.Document, err = url.PathUnescape(text.Document)
	return &found.Policy, err
}

// Render prints a policy that was made or shown.
func (p *Policy) Render(w io.Writer) error {
	if p.Document != "" {
		_, err := fmt.Fprintln(w, p.Document)
		return err
	}
	_, err := fmt.Fprintf(w, "%s  %s\nNext:  ashlar policy attach %s --user NAME\n", p.Name, p.ARN, p.Name)
	return err
}

// DeletePolicy deletes a policy that is attached to nothing.
func (c *Client) DeletePolicy(ctx context.Context, name string) (*Done, error) {
	arn, err := c.policyARN(ctx, name)
	if err != nil {
		return nil, err
	}
	if err := c.call(ctx, "DeletePolicy", params{"PolicyArn", arn}, nil); err != nil {
		return nil, err
	}
	return &Done{"deleted the policy " + name}, nil
}

// Whom names whom a policy is attached to: one of the three.
type Whom struct{ User, Group, Role string }

func (t Whom) find() (sort, name string, err error) {
	for s, n := range map[string]string{"User": t.User, "Group": t.Group, "Role": t.Role} {
		if n == "" {
			continue
		}
		if sort != "" {
			return "", "", errors.New("want one of --user, --group and --role")
		}
		sort, name = s, n
	}
	if sort == "" {
		err = errors.New("want one of --user, --group and --role")
	}
	return sort, name, err
}

// Attach gives a policy to a user, group or role, or takes it away.
func (c *Client) Attach(ctx context.Context, policy string, to Whom, away bool) (*Done, error) {
	sort, name, err := to.find()
	if err != nil {
		return nil, err
	}
	arn, err := c.policyARN(ctx, policy)
	if err != nil {
		return nil, err
	}
	action, did, where := "Attach", "attached", "to"
	if away {
		action, did, where = "Detach", "detached", "from"
	}
	if err := c.call(ctx, action+sort+"Policy", params{sort + "Name", name, "PolicyArn", arn}, nil); err != nil {
		return nil, err
	}
	return &Done{fmt.Sprintf("%s %s %s the %s %s; gateways follow within two seconds", did, policy, where, strings.ToLower(sort), name)}, nil
}

// table prints lines in columns.
func table(w io.Writer, head string, lines func(line func(...any))) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, head)
	lines(func(cells ...any) {
		for i, c := range cells {
			if i > 0 {
				fmt.Fprint(t, "\t")
			}
			fmt.Fprint(t, c)
		}
		fmt.Fprintln(t)
	})
	return t.Flush()
}
