// A cluster in one process: the objects, the API in front of them, and who acts on them.

package conformance

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
)

// Cluster is everything the suite meets.
type Cluster struct {
	// directory holds documents, logs and state.
	directory string
	kinds     Kinds
	store     *Store
	pods      *Pods
	ringway   *Ringway
	server    *http.Server
	// Config is for clients.
	Config     *rest.Config
	complaints map[string]bool
}

// startCluster makes an empty cluster with the definitions of Gateway API and Ringway's class.
func startCluster(directory, definitions, echo, binaries string) (*Cluster, error) {
	kinds, objects, err := readKinds(definitions)
	if err != nil {
		return nil, err
	}
	cluster := &Cluster{directory: directory, kinds: kinds, store: newStore(), complaints: map[string]bool{}}
	cluster.pods = &Pods{cluster: cluster, echo: echo, running: map[key][]*pod{}}
	cluster.ringway = &Ringway{cluster: cluster, binaries: binaries, gateways: map[key]*gateway{}}
	objects = append(objects, &Object{Object: map[string]any{
		"apiVersion": gatewayGroup + "/v1", "kind": "GatewayClass",
		"metadata": map[string]any{"name": gatewayClass},
		"spec":     map[string]any{"controllerName": controllerName},
	}})
	for _, object := range objects {
		group := object.GroupVersionKind()
		if _, err := cluster.store.Create(kinds.of(group.Group, group.Kind), "", object); err != nil {
			return nil, err
		}
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	cluster.server = &http.Server{Handler: &APIServer{kinds, cluster.store, cluster.pods}}
	go func() {
		_ = cluster.server.Serve(listener)
	}()
	cluster.Config = &rest.Config{Host: "http://" + listener.Addr().String(), QPS: -1}
	cluster.Config.ContentType = runtime.ContentTypeJSON
	return cluster, cluster.ringway.Start()
}

// Run acts on every change until the context ends, then stops everything that was started.
func (c *Cluster) Run(ctx context.Context) error {
	defer c.stop()
	look := time.NewTicker(statusInterval)
	defer look.Stop()
	for {
		changed := c.store.Changed()
		if err := errors.Join(c.pods.Reconcile(), c.ringway.Write(), c.ringway.Serve()); err != nil {
			return err
		}
		for waiting := true; waiting; {
			select {
			case <-changed:
				waiting = false
			case <-look.C:
				if err := c.ringway.Tell(); err != nil {
					return err
				}
			case <-ctx.Done():
				return nil
			}
		}
	}
}

func (c *Cluster) stop() {
	c.pods.Stop()
	c.ringway.Stop()
	_ = c.server.Close()
}

// complain says once what Ringway cannot read: it is never what the suite wants to see.
func (c *Cluster) complain(problem string) {
	if !c.complaints[problem] {
		c.complaints[problem] = true
		fmt.Fprintln(os.Stderr, "unreadable:", problem)
	}
}

// create adds an object of Kubernetes' own.
func (c *Cluster) create(typed runtime.Object) error {
	object, err := untyped(typed)
	if err != nil {
		return err
	}
	group := object.GroupVersionKind()
	_, err = c.store.Create(c.kinds.of(group.Group, group.Kind), object.GetNamespace(), object)
	return err
}

// put adds or changes an object of Kubernetes' own.
func (c *Cluster) put(typed runtime.Object) error {
	object, err := untyped(typed)
	if err != nil {
		return err
	}
	group := object.GroupVersionKind()
	at := key{c.kinds.of(group.Group, group.Kind), object.GetNamespace(), object.GetName()}
	_, err = c.store.Update(at, false, func(current *Object) error {
		current.Object = object.DeepCopy().Object
		return nil
	})
	if apierrors.IsNotFound(err) {
		_, err = c.store.Create(at.kind, at.namespace, object)
	}
	return err
}

func untyped(typed runtime.Object) (*Object, error) {
	object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(typed)
	return &Object{Object: object}, err
}
