package s3gw

import (
	"net/http"
	"strconv"
	"strings"

	"ashlar/s3gw/s3"
	"ashlar/s3gw/store"
)

// wantedAttributes reads what GetObjectAttributes is asked for.
func (c *call) wantedAttributes() (map[string]bool, error) {
	want := map[string]bool{}
	for _, v := range c.r.Header["X-Amz-Object-Attributes"] {
		for _, name := range strings.Split(v, ",") {
			switch name = strings.TrimSpace(name); name {
			case "ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize":
				want[name] = true
			default:
				return nil, invalidArgument("x-amz-object-attributes", name, "Invalid attribute name specified.")
			}
		}
	}
	if len(want) == 0 {
		return nil, invalidArgument("x-amz-object-attributes", "",
			"The x-amz-object-attributes header specifying the attributes to be retrieved is either missing or empty")
	}
	return want, nil
}

// partsPage is the page of parts that was asked for.
type partsPage struct{ after, max int }

func (c *call) partsPage() (p partsPage, err error) {
	for _, h := range []struct {
		name string
		to   *int
		def  int
	}{{"X-Amz-Max-Parts", &p.max, store.ListMax}, {"X-Amz-Part-Number-Marker", &p.after, 0}} {
		*h.to = h.def
		text := c.header(h.name)
		if text == "" {
			continue
		}
		n, err := strconv.ParseInt(text, 10, 32)
		if err != nil || n < 0 {
			return p, invalidArgument(strings.ToLower(h.name), text, "Provided "+strings.ToLower(h.name)+" not an integer or within integer range")
		}
		*h.to = int(n)
	}
	p.max = min(p.max, store.ListMax)
	return p, nil
}

func getObjectAttributes(c *call) error {
	want, err := c.wantedAttributes()
	if err != nil {
		return err
	}
	page, err := c.partsPage()
	if err != nil {
		return err
	}
	o, err := c.headObject()
	if err != nil {
		return err
	}
	if err := c.unlock(&o); err != nil {
		return err
	}
	cond := s3.Conditions(c.r.Header, "")
	if err := s3.JudgeRead(&cond, o.ETag, o.Modified, false); err != nil {
		return err
	}
	c.set("Last-Modified", o.Modified.UTC().Format(http.TimeFormat))
	c.versionHeader(o.Version)
	return c.xml(http.StatusOK, func(w *s3.Writer) {
		w.Begin("GetObjectAttributesResponse")
		if want["ETag"] {
			w.Raw("ETag", o.ETag)
		}
		if want["Checksum"] && o.Checksum != nil {
			w.Open("Checksum")
			sum := *o.Checksum
			if !c.s.rgw {
				sum.Parts = 0 // how many parts a composite checksum has stands in ObjectParts here
			}
			w.Checksum(&sum, false)
			w.Raw("ChecksumType", s3.ChecksumType(o.Checksum))
			w.Close("Checksum")
		}
		if want["ObjectParts"] && len(o.PartBytes) > 0 {
			writeParts(w, &o, page)
		}
		if want["StorageClass"] {
			w.Raw("StorageClass", storageClass(o.StorageClass))
		}
		if want["ObjectSize"] {
			w.Int("ObjectSize", int64(o.Bytes))
		}
		w.Close("GetObjectAttributesResponse")
	})
}

// writeParts writes the parts of a multipart object. AWS lists them only where
// they have checksums; their sizes are known anyway, and who asks gets them.
func writeParts(w *s3.Writer, o *store.Object, page partsPage) {
	w.Open("ObjectParts")
	w.Int("PartsCount", int64(len(o.PartBytes)))
	first := min(page.after, len(o.PartBytes))
	last := min(first+page.max, len(o.PartBytes))
	w.Int("PartNumberMarker", int64(page.after))
	if last > first {
		w.Int("NextPartNumberMarker", int64(last))
	}
	w.Int("MaxParts", int64(page.max))
	w.Bool("IsTruncated", last < len(o.PartBytes))
	for i := first; i < last; i++ {
		w.Open("Part")
		w.Int("PartNumber", int64(i+1))
		w.Int("Size", int64(o.PartBytes[i]))
		if i < len(o.PartSums) {
			w.Checksum(&store.Checksum{Algorithm: o.Checksum.Algorithm, Value: o.PartSums[i]}, false)
		}
		w.Close("Part")
	}
	w.Close("ObjectParts")
}
