package report

import (
	"fmt"
	"reflect"
	"strings"
)

// difference names every field in which two setups differ, with both values.
func difference(before, after Setup) string {
	left, right := reflect.ValueOf(before), reflect.ValueOf(after)
	var all []string
	for i := range left.NumField() {
		a, b := left.Field(i).Interface(), right.Field(i).Interface()
		if a != b {
			all = append(all, fmt.Sprintf("%s %v → %v", left.Type().Field(i).Name, a, b))
		}
	}
	return strings.Join(all, ", ")
}
