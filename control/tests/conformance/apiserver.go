// The part of a Kubernetes API server that the suite's clients speak to, in front of a Store: create, read, list,
// update, patch, delete, status, logs of pods and commands in them. JSON only; no watch, no validation, no access control.

package conformance

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// APIServer answers the requests of clients.
type APIServer struct {
	kinds Kinds
	store *Store
	pods  *Pods
}

// place is what a path means.
type place struct {
	kind                             *Kind
	version, namespace, name, detail string
}

func (a *APIServer) ServeHTTP(answer http.ResponseWriter, request *http.Request) {
	at, err := a.place(request.URL.Path)
	var result any
	if err == nil && at.detail == "log" {
		http.ServeFile(answer, request, a.pods.log(at.namespace, at.name))
		return
	}
	if err == nil && at.detail == "exec" {
		if caller, found := a.pods.caller(at.namespace, at.name); found {
			execute(answer, request, caller)
			return
		}
		err = apierrors.NewNotFound(at.kind.groupResource(), at.name)
	}
	if err == nil {
		result, err = a.act(at, request)
	}
	status := http.StatusOK
	if request.Method == http.MethodPost {
		status = http.StatusCreated
	}
	if err != nil {
		var known apierrors.APIStatus
		if !errors.As(err, &known) {
			known = apierrors.NewInternalError(err)
		}
		problem := known.Status()
		problem.Kind, problem.APIVersion = "Status", "v1"
		result, status = problem, int(problem.Code)
	}
	answer.Header().Set("Content-Type", "application/json")
	answer.WriteHeader(status)
	if err := json.NewEncoder(answer).Encode(result); err != nil {
		fmt.Fprintln(os.Stderr, "the API server cannot answer:", err)
	}
}

// place reads /api/v1/... and /apis/GROUP/VERSION/..., each followed by [namespaces/NAMESPACE/]RESOURCE[/NAME[/DETAIL]].
func (a *APIServer) place(path string) (place, error) {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	var group string
	var at place
	switch {
	case len(parts) >= 3 && parts[0] == "api":
		at.version, parts = parts[1], parts[2:]
	case len(parts) >= 4 && parts[0] == "apis":
		group, at.version, parts = parts[1], parts[2], parts[3:]
	default:
		return at, apierrors.NewNotFound(schema.GroupResource{}, path)
	}
	if len(parts) >= 3 && parts[0] == "namespaces" && parts[2] != "status" {
		at.namespace, parts = parts[1], parts[2:]
	}
	known := false
	if at.kind, known = a.kinds[schema.GroupResource{Group: group, Resource: parts[0]}]; !known {
		return at, apierrors.NewNotFound(schema.GroupResource{Group: group, Resource: parts[0]}, path)
	}
	if len(parts) > 1 {
		at.name = parts[1]
	}
	if len(parts) > 2 {
		at.detail = parts[2]
	}
	return at, nil
}

func (a *APIServer) act(at place, request *http.Request) (any, error) {
	object := key{at.kind, at.namespace, at.name}
	body, err := io.ReadAll(request.Body)
	if err != nil {
		return nil, err
	}
	switch {
	case request.Method == http.MethodGet && at.name == "":
		return a.list(at, request.URL.Query().Get("labelSelector"))
	case request.Method == http.MethodGet:
		return at.show(a.store.Get(object))
	case request.Method == http.MethodPost && at.name == "":
		var wanted Object
		if err := wanted.UnmarshalJSON(body); err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
		return at.show(a.store.Create(at.kind, at.namespace, &wanted))
	case request.Method == http.MethodPut:
		return at.show(a.store.Update(object, at.detail == "status", func(current *Object) error {
			return current.UnmarshalJSON(body)
		}))
	case request.Method == http.MethodPatch && request.Header.Get("Content-Type") == string(types.MergePatchType):
		return at.show(a.store.Update(object, at.detail == "status", func(current *Object) error {
			var patch map[string]any
			if err := json.Unmarshal(body, &patch); err != nil {
				return err
			}
			merged, err := json.Marshal(merge(current.Object, patch))
			if err != nil {
				return err
			}
			return current.UnmarshalJSON(merged)
		}))
	case request.Method == http.MethodDelete && at.name != "":
		return at.show(a.store.Delete(object))
	}
	return nil, apierrors.NewMethodNotSupported(at.kind.groupResource(), request.Method)
}

func (a *APIServer) list(at place, selector string) (any, error) {
	wanted, err := labels.Parse(selector)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	items := []any{}
	for _, object := range a.store.List(at.kind, at.namespace, wanted) {
		shown, _ := at.show(object, nil)
		items = append(items, shown.(*Object).Object)
	}
	return map[string]any{
		"kind": at.kind.Kind + "List", "apiVersion": at.groupVersion(), "metadata": metav1.ListMeta{}, "items": items,
	}, nil
}

// show says an object in the version that was asked for: all versions of a kind have the same fields here.
func (at place) show(object *Object, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	object.SetAPIVersion(at.groupVersion())
	object.SetKind(at.kind.Kind)
	return object, nil
}

func (at place) groupVersion() string {
	return schema.GroupVersion{Group: at.kind.Group, Version: at.version}.String()
}

// merge is RFC 7386.
func merge(target, patch map[string]any) map[string]any {
	merged := maps.Clone(target)
	if merged == nil {
		merged = map[string]any{}
	}
	for name, change := range patch {
		switch change := change.(type) {
		case nil:
			delete(merged, name)
		case map[string]any:
			before, _ := merged[name].(map[string]any)
			merged[name] = merge(before, change)
		default:
			merged[name] = change
		}
	}
	return merged
}
