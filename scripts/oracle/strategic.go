package main

import (
	"encoding/json"
	"os"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/kubernetes/scheme"
)

// strategic applies strategic merge patches. stdin: {"cases": [{"group", "kind", "object", "patch"}]}; stdout: a case a
// line, with "result" or "error".
func strategic() {
	type patchCase struct {
		Group  string          `json:"group"`
		Kind   string          `json:"kind"`
		Object json.RawMessage `json:"object"`
		Patch  json.RawMessage `json:"patch"`
		Result json.RawMessage `json:"result,omitempty"`
		Error  string          `json:"error,omitempty"`
	}
	var in struct {
		Cases []patchCase `json:"cases"`
	}
	must(json.NewDecoder(os.Stdin).Decode(&in))
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	for _, c := range in.Cases {
		object, err := scheme.Scheme.New(schema.GroupVersionKind{Group: c.Group, Version: "v1", Kind: c.Kind})
		must(err)
		result, err := strategicpatch.StrategicMergePatch(c.Object, c.Patch, object)
		if err != nil {
			c.Error = err.Error()
		} else {
			c.Result = result
		}
		must(out.Encode(c))
	}
}
