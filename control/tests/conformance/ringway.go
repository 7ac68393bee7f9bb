// Ringway in the place of a cluster's controller: what the cluster holds becomes documents in the directory that
// `ringway serve` watches, every Gateway of its class gets a `ringway gateway` on an address of its own, and what
// `ringway serve` says of the documents becomes the status of the objects.

package conformance

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/yaml"
)

const (
	controllerName = "ringway.io/gateway"
	gatewayClass   = "ringway"
	gatewayGroup   = "gateway.networking.k8s.io"
	apiAddress     = "127.0.0.1:15080"
)

// statusInterval is how often the control plane is asked what became of the documents.
const statusInterval = 50 * time.Millisecond

// Ringway is the control plane and its gateways.
type Ringway struct {
	cluster *Cluster
	// binaries is where `ringway` and `ringway-proxy` are.
	binaries string
	serve    *Process
	// written is the content of each document, by file.
	written  map[string]string
	gateways map[key]*gateway
	// count of gateways so far, for their addresses.
	count int
}

type gateway struct {
	process *Process
	address string
}

// Start runs the control plane until it answers.
func (r *Ringway) Start() error {
	if err := os.MkdirAll(r.documents(), 0o755); err != nil {
		return err
	}
	serve, err := start(filepath.Join(r.cluster.directory, "serve.log"), nil,
		filepath.Join(r.binaries, "ringway"), "serve", "--config", r.documents(),
		"--api", apiAddress, "--data-dir", filepath.Join(r.cluster.directory, "serve"))
	if err != nil {
		return err
	}
	r.serve = serve
	for !serve.hasEnded() {
		if _, err := r.ask(); err == nil {
			return nil
		}
		time.Sleep(statusInterval)
	}
	return errors.New("ringway serve ended: see serve.log")
}

// control is where proxies find the control plane.
func (r *Ringway) control() string {
	return "unix:" + filepath.Join(r.cluster.directory, "serve", "control.sock")
}

// Stop ends the gateways, then the control plane.
func (r *Ringway) Stop() {
	for _, one := range r.gateways {
		one.process.stop()
	}
	if r.serve != nil {
		r.serve.stop()
	}
}

func (r *Ringway) documents() string {
	return filepath.Join(r.cluster.directory, "documents")
}

// Write makes the directory say what the cluster holds.
func (r *Ringway) Write() error {
	wanted := map[string]string{}
	for _, kind := range r.cluster.kinds {
		if !isDocument(kind) {
			continue
		}
		for _, object := range r.cluster.store.List(kind, "", labels.Everything()) {
			delete(object.Object, "status")
			// Which status was last copied is nothing a document tells.
			unstructured.RemoveNestedField(object.Object, "metadata", "resourceVersion")
			text, err := yaml.Marshal(object.Object)
			if err != nil {
				return err
			}
			name := []string{kind.Resource, object.GetNamespace(), object.GetName(), string(object.GetUID()), "yaml"}
			wanted[strings.Join(name, ".")] = string(text)
		}
	}
	// First what is gone: an object that was made anew has another file by its UID, and must not be defined twice.
	for name := range r.written {
		if _, kept := wanted[name]; !kept {
			if err := os.Remove(filepath.Join(r.documents(), name)); err != nil {
				return err
			}
		}
	}
	for name, text := range wanted {
		if r.written[name] == text {
			continue
		}
		// A new file takes the name, so that no half of one is ever read.
		path := filepath.Join(r.documents(), name)
		if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
			return err
		}
		if err := os.Rename(path+".new", path); err != nil {
			return err
		}
	}
	r.written = wanted
	return nil
}

// isDocument tells what of a cluster Ringway reads.
func isDocument(kind *Kind) bool {
	switch kind.Kind {
	case "Namespace", "ConfigMap", "Secret", "Service", "EndpointSlice":
		return true
	}
	return kind.Group == gatewayGroup
}

// Serve keeps one `ringway gateway` per Gateway of the class.
func (r *Ringway) Serve() error {
	kind := r.cluster.kinds.of(gatewayGroup, "Gateway")
	wanted := map[key]bool{}
	for _, object := range r.cluster.store.List(kind, "", labels.Everything()) {
		if class, _, _ := unstructured.NestedString(object.Object, "spec", "gatewayClassName"); class != gatewayClass {
			continue
		}
		at := key{kind, object.GetNamespace(), object.GetName()}
		wanted[at] = true
		one, known := r.gateways[at]
		if !known {
			r.count++
			one = &gateway{address: fmt.Sprintf("127.1.%d.%d", r.count/250, r.count%250+1)}
			r.gateways[at] = one
		}
		if one.process == nil || one.process.hasEnded() {
			process, err := r.startGateway(at, one.address)
			if err != nil {
				return err
			}
			one.process = process
		}
	}
	for at, one := range r.gateways {
		if !wanted[at] {
			one.process.stop()
			delete(r.gateways, at)
		}
	}
	return nil
}

func (r *Ringway) startGateway(at key, address string) (*Process, error) {
	name := at.namespace + "/" + at.name
	log := filepath.Join(r.cluster.directory, "gateways", at.namespace, at.name)
	return start(log+".log", nil, filepath.Join(r.binaries, "ringway"), "gateway", name, "--bind", address,
		"--control", r.control(), "--admin", "127.0.0.1:0", "--drain-timeout", "1s", "--data-dir", log)
}

// document is one entry of the API's list of documents.
type document struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name      string `json:"name"`
		Namespace string `json:"namespace"`
	} `json:"metadata"`
	Status map[string]any `json:"status"`
	// Origin begins with the file.
	Origin string `json:"origin"`
}

type documents struct {
	Documents []document `json:"documents"`
	Errors    []struct {
		File   string `json:"file"`
		Reason string `json:"reason"`
	} `json:"errors"`
}

func (r *Ringway) ask() (documents, error) {
	var found documents
	answer, err := http.Get("http://" + apiAddress + "/api/v1/documents")
	if err != nil {
		return found, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return found, err
	}
	// Unlike Go's own, this one keeps integers, which is all that objects may have.
	return found, json.Unmarshal(text, &found)
}

// Tell copies what the control plane says of the documents to the status of the objects.
func (r *Ringway) Tell() error {
	found, err := r.ask()
	if err != nil {
		return err
	}
	for _, problem := range found.Errors {
		r.cluster.complain(fmt.Sprintf("%s: %s", problem.File, problem.Reason))
	}
	for _, one := range found.Documents {
		group, _, _ := strings.Cut(one.APIVersion, "/")
		if group != gatewayGroup || one.Status == nil {
			continue
		}
		at := key{r.cluster.kinds.of(group, one.Kind), one.Metadata.Namespace, one.Metadata.Name}
		if known, isGateway := r.gateways[at]; isGateway {
			one.Status["addresses"] = []any{map[string]any{"type": "IPAddress", "value": known.address}}
		}
		_, err := r.cluster.store.Update(at, true, func(object *Object) error {
			// What is said of an object that was deleted does not hold for the next one of its name.
			if strings.Contains(one.Origin, string(object.GetUID())) {
				object.Object["status"] = one.Status
			}
			return nil
		})
		if err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return nil
}
