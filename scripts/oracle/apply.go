package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

type step struct {
	Op          string               `json:"op"`
	Manager     string               `json:"manager"`
	Force       bool                 `json:"force,omitempty"`
	Subresource string               `json:"subresource,omitempty"`
	Object      json.RawMessage      `json:"object"`
	Result      json.RawMessage      `json:"result,omitempty"`
	Error       string               `json:"error,omitempty"`
	Causes      []metav1.StatusCause `json:"causes,omitempty"`
}
type scenario struct {
	Name  string          `json:"name"`
	Group string          `json:"group"`
	Kind  string          `json:"kind"`
	CRD   json.RawMessage `json:"structural,omitempty"`
	Steps []step          `json:"steps"`
}
type input struct {
	Schemas   string     `json:"schemas,omitempty"`
	Scenarios []scenario `json:"scenarios"`
}

type converter struct{ crd bool }

func (c converter) Convert(in, out, context interface{}) error { panic("no") }
func (c converter) ConvertToVersion(in runtime.Object, gv runtime.GroupVersioner) (runtime.Object, error) {
	u, ok := in.(*unstructured.Unstructured)
	if !ok || c.crd {
		return in, nil
	}
	out, err := scheme.Scheme.New(u.GroupVersionKind())
	if err != nil {
		return nil, err
	}
	err = runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, out)
	out.GetObjectKind().SetGroupVersionKind(u.GroupVersionKind())
	return out, err
}
func (c converter) ConvertFieldLabel(gvk schema.GroupVersionKind, l, v string) (string, string, error) {
	return l, v, nil
}

type creater struct{ crd bool }

func (c creater) New(k schema.GroupVersionKind) (runtime.Object, error) {
	if c.crd {
		u := &unstructured.Unstructured{Object: map[string]interface{}{}}
		u.SetGroupVersionKind(k)
		return u, nil
	}
	o, err := scheme.Scheme.New(k)
	if err == nil {
		o.GetObjectKind().SetGroupVersionKind(k)
	}
	return o, err
}

type nodefault struct{}

func (nodefault) Default(runtime.Object) {}

func merge(t, p interface{}) interface{} {
	pm, ok := p.(map[string]interface{})
	if !ok {
		return p
	}
	tm, ok := t.(map[string]interface{})
	if !ok {
		tm = map[string]interface{}{}
	}
	for k, v := range pm {
		if v == nil {
			delete(tm, k)
		} else {
			tm[k] = merge(tm[k], v)
		}
	}
	return tm
}

// apply replays scenarios of server-side apply and other writes through Kubernetes' own field manager and writes down
// what comes out. stdin: {"schemas": path, "scenarios": [...]}; stdout: a scenario a line, with "result" or "error" in
// each step.
func apply() {
	var in input
	if err := json.NewDecoder(os.Stdin).Decode(&in); err != nil {
		panic(err)
	}
	raw, err := os.ReadFile(in.Schemas)
	if err != nil {
		panic(err)
	}
	var doc struct {
		Components struct {
			Schemas map[string]*spec.Schema `json:"schemas"`
		} `json:"components"`
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		panic(err)
	}
	in.Schemas = ""
	for si := range in.Scenarios {
		s := &in.Scenarios[si]
		gvk := schema.GroupVersionKind{Group: s.Group, Version: "v1", Kind: s.Kind}
		crd := len(s.CRD) > 0
		models := doc.Components.Schemas
		if crd {
			var root spec.Schema
			if err := json.Unmarshal(s.CRD, &root); err != nil {
				panic(err)
			}
			models = map[string]*spec.Schema{}
			for k, v := range doc.Components.Schemas {
				models[k] = v
			}
			root.Properties["apiVersion"] = *spec.StringProperty()
			root.Properties["kind"] = *spec.StringProperty()
			root.Properties["metadata"] = *spec.RefSchema("#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")
			root.AddExtension("x-kubernetes-group-version-kind", []interface{}{map[string]interface{}{"group": s.Group, "version": "v1", "kind": s.Kind}})
			models["example.Thing"] = &root
		}
		tc, err := managedfields.NewTypeConverter(models, false)
		if err != nil {
			panic(err)
		}
		reset := func(sub string) map[fieldpath.APIVersion]fieldpath.Filter {
			if s.Kind == "ConfigMap" || s.Kind == "Secret" {
				return nil
			}
			name := "status"
			if sub == "status" {
				name = "spec"
			}
			return fieldpath.NewExcludeFilterSetMap(map[fieldpath.APIVersion]*fieldpath.Set{
				fieldpath.APIVersion(gvk.GroupVersion().String()): fieldpath.NewSet(fieldpath.MakePathOrDie(name)),
			})
		}
		fm := func(sub string) *managedfields.FieldManager {
			var f *managedfields.FieldManager
			var err error
			if crd {
				f, err = managedfields.NewDefaultCRDFieldManager(tc, converter{true}, nodefault{}, creater{true}, gvk, gvk.GroupVersion(), sub, reset(sub))
			} else {
				f, err = managedfields.NewDefaultFieldManager(tc, converter{}, nodefault{}, creater{}, gvk, gvk.GroupVersion(), sub, reset(sub))
			}
			if err != nil {
				panic(err)
			}
			return f
		}
		var live runtime.Object
		for i := range s.Steps {
			st := &s.Steps[i]
			start := live
			if start == nil {
				start, _ = creater{crd}.New(gvk)
			} else {
				start = start.DeepCopyObject()
			}
			var out runtime.Object
			var err error
			var obj map[string]interface{}
			if err := json.Unmarshal(st.Object, &obj); err != nil {
				panic(err)
			}
			if st.Op == "apply" {
				u := &unstructured.Unstructured{}
				if err := u.UnmarshalJSON(st.Object); err != nil {
					panic(fmt.Sprint(string(st.Object), err))
				}
				out, err = fm(st.Subresource).Apply(start, u, st.Manager, st.Force)
			} else {
				b, _ := json.Marshal(start)
				var old interface{}
				json.Unmarshal(b, &old)
				merged, _ := json.Marshal(merge(old, obj))
				next, _ := creater{crd}.New(gvk)
				if err := json.Unmarshal(merged, next); err != nil {
					panic(err)
				}
				next.GetObjectKind().SetGroupVersionKind(gvk)
				out, err = fm(st.Subresource).Update(start, next, st.Manager)
			}
			if err != nil {
				st.Error = err.Error()
				if se, ok := err.(*errors.StatusError); ok {
					st.Error = se.ErrStatus.Message
					if d := se.ErrStatus.Details; d != nil {
						st.Causes = d.Causes
					}
				}
				continue
			}
			acc, _ := meta.Accessor(out)
			fields := acc.GetManagedFields()
			for j := range fields {
				if fields[j].Time != nil && fields[j].Time.Year() > 2020 {
					t := metav1.NewTime(time.Date(2020, 1, 1, 0, 0, i, 0, time.UTC))
					fields[j].Time = &t
				}
			}
			acc.SetManagedFields(fields)
			if acc.GetUID() == "" {
				acc.SetUID("u")
			}
			live = out
			b, err2 := json.Marshal(out)
			if err2 != nil {
				panic(err2)
			}
			st.Result = json.RawMessage(strings.TrimSpace(string(b)))
		}
	}
	e := json.NewEncoder(os.Stdout)
	e.SetEscapeHTML(false)
	for _, s := range in.Scenarios {
		e.Encode(s)
	}
}
