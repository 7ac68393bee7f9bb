// The objects of the cluster, with the bookkeeping an API server does: versions, generations, defaults. No watch: who
// keeps pace with the store asks for everything whenever something changed.

package conformance

import (
	"fmt"
	"reflect"
	"sort"
	"strconv"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/util/uuid"
)

// Object is one object as its JSON says it.
type Object = unstructured.Unstructured

// key names one object.
type key struct {
	kind            *Kind
	namespace, name string
}

// Store is safe for use by several goroutines. What it hands out are copies.
type Store struct {
	mutex   sync.Mutex
	objects map[key]*Object
	version int64
	changed chan struct{}
}

func newStore() *Store {
	return &Store{objects: map[key]*Object{}, changed: make(chan struct{})}
}

// Changed is closed at the next change.
func (s *Store) Changed() <-chan struct{} {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.changed
}

func (s *Store) put(at key, object *Object) *Object {
	s.version++
	object.SetResourceVersion(strconv.FormatInt(s.version, 10))
	s.objects[at] = object
	s.announce()
	return object.DeepCopy()
}

func (s *Store) announce() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// Get finds one object.
func (s *Store) Get(at key) (*Object, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.get(at)
}

func (s *Store) get(at key) (*Object, error) {
	object, found := s.objects[at]
	if !found {
		return nil, apierrors.NewNotFound(at.kind.groupResource(), at.name)
	}
	return object.DeepCopy(), nil
}

// List finds the objects of a kind in the order of their names; an empty namespace means all.
func (s *Store) List(kind *Kind, namespace string, selector labels.Selector) []*Object {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	var found []*Object
	for at, object := range s.objects {
		if at.kind == kind && (namespace == "" || at.namespace == namespace) &&
			selector.Matches(labels.Set(object.GetLabels())) {
			found = append(found, object.DeepCopy())
		}
	}
	sort.Slice(found, func(i, j int) bool {
		a, b := found[i], found[j]
		return a.GetNamespace()+"/"+a.GetName() < b.GetNamespace()+"/"+b.GetName()
	})
	return found
}

// Create adds an object.
func (s *Store) Create(kind *Kind, namespace string, object *Object) (*Object, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	object = object.DeepCopy()
	if object.GetName() == "" {
		object.SetName(object.GetGenerateName() + rand.String(5))
	}
	object.SetNamespace(namespace)
	at := key{kind, namespace, object.GetName()}
	if _, exists := s.objects[at]; exists {
		return nil, apierrors.NewAlreadyExists(kind.groupResource(), at.name)
	}
	if kind.schema != nil {
		// Status is another's to write.
		delete(object.Object, "status")
		setDefaults(object.Object, kind.schema)
	}
	object.SetUID(uuid.NewUUID())
	object.SetGeneration(1)
	now := time.Now().UTC().Format(time.RFC3339)
	_ = unstructured.SetNestedField(object.Object, now, "metadata", "creationTimestamp")
	return s.put(at, object), nil
}

// Update changes an object: all of it but its status, or its status alone.
func (s *Store) Update(at key, statusOnly bool, change func(*Object) error) (*Object, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	before, err := s.get(at)
	if err != nil {
		return nil, err
	}
	after := before.DeepCopy()
	if err := change(after); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	if version := after.GetResourceVersion(); version != "" && version != before.GetResourceVersion() {
		reason := fmt.Errorf("it is at version %s by now", before.GetResourceVersion())
		return nil, apierrors.NewConflict(at.kind.groupResource(), at.name, reason)
	}
	if statusOnly {
		wanted := before.DeepCopy()
		copyStatus(wanted, after)
		after = wanted
	} else if at.kind.schema != nil {
		copyStatus(after, before)
		setDefaults(after.Object, at.kind.schema)
	}
	keep(after, before)
	if !sameContent(before, after) {
		after.SetGeneration(before.GetGeneration() + 1)
	}
	if reflect.DeepEqual(before.Object, after.Object) {
		return before, nil
	}
	return s.put(at, after), nil
}

func copyStatus(to, from *Object) {
	delete(to.Object, "status")
	if status, present := from.Object["status"]; present {
		to.Object["status"] = status
	}
}

// keep carries over what no client can change.
func keep(after, before *Object) {
	after.SetName(before.GetName())
	after.SetNamespace(before.GetNamespace())
	after.SetUID(before.GetUID())
	after.SetGeneration(before.GetGeneration())
	after.SetResourceVersion(before.GetResourceVersion())
	created, _, _ := unstructured.NestedFieldCopy(before.Object, "metadata", "creationTimestamp")
	_ = unstructured.SetNestedField(after.Object, created, "metadata", "creationTimestamp")
}

// sameContent compares what the generation counts the changes of.
func sameContent(a, b *Object) bool {
	return reflect.DeepEqual(content(a), content(b))
}

func content(object *Object) map[string]any {
	content := map[string]any{}
	for field, value := range object.Object {
		if field != "metadata" && field != "status" {
			content[field] = value
		}
	}
	return content
}

// Delete removes an object, and with a namespace all that is in it.
func (s *Store) Delete(at key) (*Object, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	object, err := s.get(at)
	if err != nil {
		return nil, err
	}
	for other := range s.objects {
		if other == at || at.kind.Kind == "Namespace" && other.namespace == at.name {
			delete(s.objects, other)
		}
	}
	s.announce()
	return object, nil
}
