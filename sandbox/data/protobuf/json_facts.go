// Prints json.txt: what protobuf descriptors don't tell of Kubernetes' JSON, from the struct tags.
package main

import (
	"fmt"
	"reflect"
	"sort"
	"strings"

	admission "k8s.io/api/admissionregistration/v1"
	apps "k8s.io/api/apps/v1"
	authentication "k8s.io/api/authentication/v1"
	authorization "k8s.io/api/authorization/v1"
	autoscaling "k8s.io/api/autoscaling/v1"
	batch "k8s.io/api/batch/v1"
	coordination "k8s.io/api/coordination/v1"
	core "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	events "k8s.io/api/events/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	rbac "k8s.io/api/rbac/v1"
	scheduling "k8s.io/api/scheduling/v1"
	storage "k8s.io/api/storage/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

var seen = map[reflect.Type]bool{}

// By message, what is told of its fields.
var told = map[string][]string{}

func visit(t reflect.Type) {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		visit(t.Elem())
		return
	case reflect.Struct:
	default:
		return
	}
	if seen[t] || !strings.HasPrefix(t.PkgPath(), "k8s.io/") {
		return
	}
	seen[t] = true
	message := strings.ReplaceAll(t.PkgPath(), "/", ".") + "." + t.Name()
	for i := 0; i < t.NumField(); i++ {
		f := t.Field(i)
		visit(f.Type)
		name := ""
		for _, part := range strings.Split(f.Tag.Get("protobuf"), ",") {
			if strings.HasPrefix(part, "name=") {
				name = strings.TrimPrefix(part, "name=")
			}
		}
		if name == "" && f.Anonymous && f.Tag.Get("protobuf") != "" {
			name = strings.ToLower(f.Name[:1]) + f.Name[1:]
		}
		if name == "" {
			continue
		}
		json := strings.Split(f.Tag.Get("json"), ",")
		has := func(option string) bool {
			for _, o := range json[1:] {
				if o == option {
					return true
				}
			}
			return false
		}
		if has("inline") || (json[0] == "" && f.Anonymous) {
			tell(message, ">"+name)
			continue
		}
		if json[0] != name {
			if json[0] != "" && json[0] != "-" {
				tell(message, name+"="+json[0])
			}
		}
		switch f.Type.Kind() {
		case reflect.Pointer:
			if k := f.Type.Elem().Kind(); k != reflect.Struct {
				tell(message, "!"+name)
			}
		case reflect.String, reflect.Bool, reflect.Int32, reflect.Int64:
			if !has("omitempty") {
				tell(message, "!"+name)
			}
		}
	}
}

func tell(message, what string) {
	told[message] = append(told[message], what)
}

func main() {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		admission.AddToScheme, apps.AddToScheme, authentication.AddToScheme, authorization.AddToScheme,
		autoscaling.AddToScheme, batch.AddToScheme, coordination.AddToScheme, core.AddToScheme,
		discovery.AddToScheme, events.AddToScheme, networking.AddToScheme, policy.AddToScheme,
		rbac.AddToScheme, scheduling.AddToScheme, storage.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			panic(err)
		}
	}
	for _, t := range scheme.AllKnownTypes() {
		visit(t)
	}
	visit(reflect.TypeOf(meta.DeleteOptions{}))
	messages := make([]string, 0, len(told))
	for message := range told {
		messages = append(messages, message)
	}
	sort.Strings(messages)
	for _, message := range messages {
		fmt.Println(message, strings.Join(told[message], " "))
	}
}
