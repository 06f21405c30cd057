package main

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand"
	"os"
	"reflect"
	"regexp"
	"sort"
	"strings"
	"time"

	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/apitesting/fuzzer"
	"k8s.io/apimachinery/pkg/api/resource"
	metafuzzer "k8s.io/apimachinery/pkg/apis/meta/fuzzer"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes/scheme"
	apiregistration "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"sigs.k8s.io/randfill"
)

var generallyAvailable = regexp.MustCompile(`^v[0-9]+$`)

// kinds lists every kind of a generally available version, and the kinds of meta/v1 that belong to no group.
func kinds() []schema.GroupVersionKind {
	must(apiextensions.AddToScheme(scheme.Scheme))
	must(apiregistration.AddToScheme(scheme.Scheme))
	var out []schema.GroupVersionKind
	for gvk, t := range scheme.Scheme.AllKnownTypes() {
		if !generallyAvailable.MatchString(gvk.Version) {
			continue
		}
		if t.PkgPath() == reflect.TypeOf(metav1.Status{}).PkgPath() && gvk.Group != "" {
			continue
		}
		// Nobody posts lists; and events of watches go the other way.
		if strings.HasSuffix(gvk.Kind, "List") || gvk.Kind == "WatchEvent" {
			continue
		}
		if _, ok := reflect.New(t).Interface().(interface{ Unmarshal([]byte) error }); !ok {
			continue
		}
		out = append(out, gvk)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].String() < out[j].String() })
	return out
}

func isMeta(gvk schema.GroupVersionKind) bool {
	return scheme.Scheme.AllKnownTypes()[gvk].PkgPath() == reflect.TypeOf(metav1.Status{}).PkgPath()
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// Types that are written in JSON otherwise than as their fields, by the letter that the table gives them.
var special = map[string]string{
	"k8s.io/apimachinery/pkg/api/resource.Quantity":                                         "q",
	"k8s.io/apimachinery/pkg/apis/meta/v1.Time":                                             "t",
	"k8s.io/apimachinery/pkg/apis/meta/v1.MicroTime":                                        "u",
	"k8s.io/apimachinery/pkg/apis/meta/v1.Duration":                                         "d",
	"k8s.io/apimachinery/pkg/util/intstr.IntOrString":                                       "x",
	"k8s.io/apimachinery/pkg/apis/meta/v1.FieldsV1":                                         "r",
	"k8s.io/apimachinery/pkg/runtime.RawExtension":                                          "r",
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSON":                         "r",
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSONSchemaPropsOrBool":        "B",
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSONSchemaPropsOrArray":       "A",
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSONSchemaPropsOrStringArray": "S",
}

type tables struct {
	index map[reflect.Type]int
	types []reflect.Type
}

func (t *tables) message(r reflect.Type) string {
	i, ok := t.index[r]
	if !ok {
		i = len(t.types)
		t.index[r] = i
		t.types = append(t.types, r)
	}
	return fmt.Sprintf("m%d", i)
}

// value names the type of one value, as protobuf.rs reads it.
func (t *tables) value(r reflect.Type) string {
	for r.Kind() == reflect.Pointer {
		r = r.Elem()
	}
	if letter, ok := special[r.PkgPath()+"."+r.Name()]; ok {
		if letter == "B" || letter == "A" || letter == "S" {
			t.message(reflect.TypeOf(apiextensions.JSONSchemaProps{}))
		}
		return letter
	}
	switch r.Kind() {
	case reflect.String:
		return "s"
	case reflect.Bool:
		return "b"
	case reflect.Int, reflect.Int32, reflect.Int64, reflect.Uint32:
		return "i"
	case reflect.Float64:
		return "f"
	case reflect.Slice:
		if r.Elem().Kind() == reflect.Uint8 {
			return "y"
		}
		// A named list of strings is a message of its own on the wire.
		if _, ok := reflect.New(r).Interface().(interface{ Unmarshal([]byte) error }); ok && r.Elem().Kind() == reflect.String {
			return "L"
		}
	case reflect.Struct:
		return t.message(r)
	}
	panic(fmt.Sprintf("no protobuf form for %v", r))
}

// field names the type of a field: `*` repeated, `%` a map with string keys.
func (t *tables) field(r reflect.Type) string {
	for r.Kind() == reflect.Pointer {
		r = r.Elem()
	}
	switch {
	case r.Kind() == reflect.Map:
		if r.Key().Kind() != reflect.String {
			panic(fmt.Sprint(r))
		}
		return "%" + t.value(r.Elem())
	case r.Kind() == reflect.Slice && r.Elem().Kind() != reflect.Uint8:
		if _, ok := reflect.New(r).Interface().(interface{ Unmarshal([]byte) error }); ok {
			return t.value(r)
		}
		return "*" + t.value(r.Elem())
	}
	return t.value(r)
}

// protobufTable writes how the messages of every kind are laid out, and how JSON names and shows their fields:
//
//	kind <apiVersion or *> <kind> <message>
//	message <message> <Go type>
//	<number> <type> <presence> <JSON name, or - for a message whose fields are its parent's>
//
// Presence: `?` a pointer, shown whenever it is on the wire; `!` always shown; `.` shown unless it is zero.
func protobufTable() {
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	t := &tables{index: map[reflect.Type]int{}}
	for _, gvk := range kinds() {
		version := gvk.GroupVersion().String()
		if isMeta(gvk) {
			version = "*"
		}
		fmt.Fprintf(out, "kind %s %s %s\n", version, gvk.Kind, strings.TrimPrefix(t.message(scheme.Scheme.AllKnownTypes()[gvk]), "m"))
	}
	for i := 0; i < len(t.types); i++ {
		fmt.Fprintf(out, "message %d %s\n", i, t.types[i].String())
		for f := 0; f < t.types[i].NumField(); f++ {
			field := t.types[i].Field(f)
			tag := strings.Split(field.Tag.Get("protobuf"), ",")
			if len(tag) < 2 {
				continue
			}
			names := strings.Split(field.Tag.Get("json"), ",")
			name, options := names[0], names[1:]
			has := func(option string) bool {
				for _, o := range options {
					if o == option {
						return true
					}
				}
				return false
			}
			presence := "!"
			if has("omitempty") {
				presence = "."
			}
			if field.Type.Kind() == reflect.Pointer {
				presence = "?"
			}
			if has("inline") {
				name = "-"
			} else if name == "-" {
				continue
			} else if name == "" {
				panic(fmt.Sprint(t.types[i], field.Name))
			}
			fmt.Fprintf(out, "%s %s %s %s\n", tag[1], t.field(field.Type), presence, name)
		}
	}
}

// protobufSamples writes, for every kind, a random object as Go sends it and as Go shows it.
func protobufSamples() {
	all := kinds()
	codecs := serializer.NewCodecFactory(scheme.Scheme)
	word := func(c randfill.Continue) string {
		const letters = "abcdefgh-0123<é"
		n := 1 + c.Intn(5)
		var b strings.Builder
		for i := 0; i < n; i++ {
			b.WriteRune([]rune(letters)[c.Intn(15)])
		}
		return b.String()
	}
	funcs := fuzzer.MergeFuzzerFuncs(metafuzzer.Funcs, func(serializer.CodecFactory) []interface{} {
		return []interface{}{
			func(s *string, c randfill.Continue) { *s = word(c) },
			func(r *runtime.RawExtension, c randfill.Continue) { r.Raw = []byte(`{"raw":[1,"` + word(c) + `"]}`) },
			func(j *apiextensions.JSON, c randfill.Continue) { j.Raw = []byte(`["` + word(c) + `"]`) },
			func(p **apiextensions.JSONSchemaProps, c randfill.Continue) {
				if c.Intn(3) == 0 {
					*p = &apiextensions.JSONSchemaProps{Type: word(c), MaxLength: new(int64)}
				}
			},
			func(p *apiextensions.JSONSchemaProps, c randfill.Continue) {
				if c.Intn(2) == 0 {
					c.FillNoCustom(p)
				}
			},
			func(v *apiextensions.JSONSchemaPropsOrBool, c randfill.Continue) {
				v.Allows = c.Bool()
				if v.Allows && c.Bool() {
					v.Schema = &apiextensions.JSONSchemaProps{Type: word(c)}
				}
			},
			func(v *apiextensions.JSONSchemaPropsOrArray, c randfill.Continue) {
				if c.Bool() {
					v.Schema = &apiextensions.JSONSchemaProps{Type: word(c)}
				} else {
					v.JSONSchemas = []apiextensions.JSONSchemaProps{{Type: word(c)}, {}}
				}
			},
			func(v *apiextensions.JSONSchemaPropsOrStringArray, c randfill.Continue) {
				if c.Bool() {
					v.Schema = &apiextensions.JSONSchemaProps{Type: word(c)}
				} else {
					v.Property = []string{word(c)}
				}
			},
			func(v *intstr.IntOrString, c randfill.Continue) {
				if c.Bool() {
					*v = intstr.FromInt32(int32(c.Intn(100)))
				} else {
					*v = intstr.FromString(word(c))
				}
			},
			func(q *resource.Quantity, c randfill.Continue) {
				*q = resource.MustParse([]string{"0", "100m", "1Gi", "1500m", "3e3"}[c.Intn(5)])
			},
			func(t *metav1.Time, c randfill.Continue) {
				if c.Bool() {
					t.Time = time.Unix(int64(c.Intn(2000000000)), 0).UTC()
				}
			},
			func(t *metav1.MicroTime, c randfill.Continue) {
				if c.Bool() {
					t.Time = time.Unix(int64(c.Intn(2000000000)), int64(c.Intn(1000000))*1000).UTC()
				}
			},
			func(d *metav1.Duration, c randfill.Continue) { d.Duration = time.Duration(c.Intn(1 << 40)) },
			func(f *metav1.FieldsV1, c randfill.Continue) { f.SetRawBytes([]byte(`{"f:` + word(c) + `":{}}`)) },
			func(f *float64, c randfill.Continue) { *f = float64(c.Intn(100)) / 4 },
		}
	})
	fill := fuzzer.FuzzerFor(funcs, rand.NewSource(36), codecs)
	fill.NilChance(0.6).NumElements(1, 2).MaxDepth(12)
	wire := protobuf.NewSerializer(scheme.Scheme, scheme.Scheme)
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	for _, gvk := range all {
		object, err := scheme.Scheme.New(gvk)
		must(err)
		fill.Fill(object)
		object.GetObjectKind().SetGroupVersionKind(gvk)
		var body strings.Builder
		must(wire.Encode(object, &body))
		again, _, err := wire.Decode([]byte(body.String()), nil, nil)
		must(err)
		again.GetObjectKind().SetGroupVersionKind(gvk)
		shown, err := json.Marshal(again)
		must(err)
		must(out.Encode(map[string]interface{}{
			"body": base64.StdEncoding.EncodeToString([]byte(body.String())),
			"json": json.RawMessage(shown),
		}))
	}
}
