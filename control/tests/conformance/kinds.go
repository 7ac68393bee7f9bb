// Which kinds the cluster has: Gateway API's from its own CustomResourceDefinitions, with the defaults these give to
// fields, and the few of Kubernetes that the suite uses. Nothing is validated.

package conformance

import (
	"fmt"
	"os"
	"path/filepath"

	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/yaml"
)

// Kind is one kind of object.
type Kind struct {
	Group, Kind, Resource string
	versions              []string
	namespaced            bool
	// schema is set for kinds from a CustomResourceDefinition; all of these have a status of its own.
	schema *apiextensions.JSONSchemaProps
}

func (k *Kind) groupResource() schema.GroupResource {
	return schema.GroupResource{Group: k.Group, Resource: k.Resource}
}

// Kinds by the names they have in paths.
type Kinds map[schema.GroupResource]*Kind

func builtIn() []*Kind {
	v1 := []string{"v1"}
	return []*Kind{
		{Kind: "Namespace", Resource: "namespaces", versions: v1},
		{Kind: "Service", Resource: "services", versions: v1, namespaced: true},
		{Kind: "Pod", Resource: "pods", versions: v1, namespaced: true},
		{Kind: "Secret", Resource: "secrets", versions: v1, namespaced: true},
		{Kind: "ConfigMap", Resource: "configmaps", versions: v1, namespaced: true},
		{Kind: "ServiceAccount", Resource: "serviceaccounts", versions: v1, namespaced: true},
		{Group: "apps", Kind: "Deployment", Resource: "deployments", versions: v1, namespaced: true},
		{Group: "discovery.k8s.io", Kind: "EndpointSlice", Resource: "endpointslices", versions: v1, namespaced: true},
		{
			Group: "apiextensions.k8s.io", Kind: "CustomResourceDefinition",
			Resource: "customresourcedefinitions", versions: v1,
		},
	}
}

// readKinds reads the definitions in a directory; they are also objects of the cluster.
func readKinds(directory string) (Kinds, []*Object, error) {
	kinds := Kinds{}
	for _, kind := range builtIn() {
		kinds[kind.groupResource()] = kind
	}
	files, err := filepath.Glob(filepath.Join(directory, "gateway.networking.k8s.io_*.yaml"))
	if err != nil || len(files) == 0 {
		return nil, nil, fmt.Errorf("no definitions of Gateway API in %s: %w", directory, err)
	}
	var definitions []*Object
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, nil, err
		}
		var definition apiextensions.CustomResourceDefinition
		if err := yaml.Unmarshal(text, &definition); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", file, err)
		}
		if definition.Kind != "CustomResourceDefinition" {
			continue
		}
		spec := definition.Spec
		kind := &Kind{
			Group: spec.Group, Kind: spec.Names.Kind, Resource: spec.Names.Plural,
			namespaced: spec.Scope == apiextensions.NamespaceScoped,
		}
		for _, version := range spec.Versions {
			if version.Served {
				kind.versions = append(kind.versions, version.Name)
			}
			if version.Storage {
				kind.schema = version.Schema.OpenAPIV3Schema
			}
		}
		kinds[kind.groupResource()] = kind
		object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&definition)
		if err != nil {
			return nil, nil, err
		}
		definitions = append(definitions, &Object{Object: object})
	}
	return kinds, definitions, nil
}

// mapper answers for clients, so that they need not ask the server which kinds there are.
func (k Kinds) mapper() meta.RESTMapper {
	mapper := meta.NewDefaultRESTMapper(nil)
	for _, kind := range k {
		scope := meta.RESTScopeRoot
		if kind.namespaced {
			scope = meta.RESTScopeNamespace
		}
		for _, version := range kind.versions {
			group := schema.GroupVersion{Group: kind.Group, Version: version}
			resource := group.WithResource(kind.Resource)
			mapper.AddSpecific(group.WithKind(kind.Kind), resource, resource, scope)
		}
	}
	return mapper
}

// of finds a kind by its group and name.
func (k Kinds) of(group, name string) *Kind {
	for _, kind := range k {
		if kind.Group == group && kind.Kind == name {
			return kind
		}
	}
	panic("no kind " + name)
}

// setDefaults fills in absent fields that have a default, as an API server does before it stores an object.
func setDefaults(value any, schema *apiextensions.JSONSchemaProps) {
	switch value := value.(type) {
	case map[string]any:
		for name, property := range schema.Properties {
			if _, present := value[name]; !present && property.Default != nil {
				var fallback any
				if err := json.Unmarshal(property.Default.Raw, &fallback); err == nil {
					value[name] = fallback
				}
			}
			if field, present := value[name]; present {
				setDefaults(field, &property)
			}
		}
		if more := schema.AdditionalProperties; more != nil && more.Schema != nil {
			for _, field := range value {
				setDefaults(field, more.Schema)
			}
		}
	case []any:
		if schema.Items != nil && schema.Items.Schema != nil {
			for _, item := range value {
				setDefaults(item, schema.Items.Schema)
			}
		}
	}
}
