// What a cluster does with Deployments and Services, as far as the suite needs it: a Deployment's pods are processes
// of the suite's own echo server, reached at an address of their own; a Service's EndpointSlice names them.
//
// Limits: nothing is rolled out when a Deployment or what its volumes hold changes, and pods of any other image are ready
// in name only.

package conformance

import (
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
)

// podPorts are the ports of an echo server by the variables that move them: all pods share one loopback, so each
// server listens elsewhere, and the ports of the pod's own address lead there.
var podPorts = []struct {
	port      int
	variables []string
}{
	{3000, []string{"HTTP_PORT", "TCP_PORT"}},
	{3001, []string{"H2C_PORT"}},
	{8443, []string{"HTTPS_PORT", "TLS_PORT"}},
}

// Pods are those of all Deployments.
type Pods struct {
	cluster *Cluster
	// echo is the echo server's executable.
	echo  string
	mutex sync.Mutex
	// running is by the key of the Deployment.
	running map[key][]*pod
	count   int
}

type pod struct {
	name      string
	process   *Process
	listeners []net.Listener
	// caller is where a pod of the mesh takes commands.
	caller string
}

// Reconcile starts what is missing and ends what is gone.
func (p *Pods) Reconcile() error {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	kind := p.cluster.kinds.of("apps", "Deployment")
	wanted := map[key]bool{}
	for _, object := range p.cluster.store.List(kind, "", labels.Everything()) {
		var deployment apps.Deployment
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &deployment); err != nil {
			return err
		}
		at := key{kind, deployment.Namespace, deployment.Name}
		wanted[at] = true
		replicas := 1
		if deployment.Spec.Replicas != nil {
			replicas = int(*deployment.Spec.Replicas)
		}
		for len(p.running[at]) < replicas {
			started, err := p.start(at, &deployment)
			if err != nil {
				return err
			}
			if !started {
				break
			}
		}
	}
	for at, pods := range p.running {
		if !wanted[at] {
			for _, one := range pods {
				p.stop(at.namespace, one)
			}
			delete(p.running, at)
		}
	}
	return p.slices()
}

// Stop ends all pods.
func (p *Pods) Stop() {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	for at, pods := range p.running {
		for _, one := range pods {
			p.stop(at.namespace, one)
		}
	}
}

func (p *Pods) log(namespace, name string) string {
	return filepath.Join(p.cluster.directory, "pods", namespace, name+".log")
}

// start is false while something that the pod's volumes need is not there yet.
func (p *Pods) start(at key, deployment *apps.Deployment) (bool, error) {
	spec := deployment.Spec.Template.Spec
	volumes := filepath.Join(p.cluster.directory, "volumes", at.namespace, at.name)
	mounts, ready, err := p.cluster.mount(at.namespace, spec, volumes)
	if err != nil || !ready {
		return false, err
	}
	p.count++
	address := fmt.Sprintf("127.2.%d.%d", p.count/250, p.count%250+1)
	// As in a cluster: the Deployment, its ReplicaSet, the pod. The suite takes names apart.
	one := &pod{name: fmt.Sprintf("%s-conformance-%d", at.name, len(p.running[at]))}
	behind := 20000 + p.count*len(podPorts)
	switch container := spec.Containers[0]; {
	case strings.Contains(container.Image, "/echo-basic:"):
		err = p.echoPod(at, one, container.Env, mounts, address, behind)
	case strings.Contains(container.Image, "/echo-advanced:"):
		err = p.meshPod(at, one, address, behind)
	}
	if err != nil {
		return false, err
	}
	p.running[at] = append(p.running[at], one)
	return true, p.cluster.create(&core.Pod{
		TypeMeta: meta.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: meta.ObjectMeta{
			Namespace: at.namespace, Name: one.name, Labels: deployment.Spec.Template.Labels,
		},
		Spec: spec,
		Status: core.PodStatus{
			Phase: core.PodRunning, PodIP: address, PodIPs: []core.PodIP{{IP: address}},
			Conditions: []core.PodCondition{{Type: core.PodReady, Status: core.ConditionTrue}},
		},
	})
}

// echoPod starts an echo server whose ports are in a row from the one given.
func (p *Pods) echoPod(
	at key, one *pod, variables []core.EnvVar, mounts mounts, address string, behind int,
) error {
	environment := []string{"POD_NAME=" + one.name, "NAMESPACE=" + at.namespace}
	for _, variable := range variables {
		if variable.ValueFrom == nil {
			environment = append(environment, variable.Name+"="+mounts.of(variable.Value))
		}
	}
	for i, ports := range podPorts {
		for _, variable := range ports.variables {
			environment = append(environment, fmt.Sprintf("%s=%d", variable, behind+i))
		}
		listener, err := net.Listen("tcp", fmt.Sprintf("%s:%d", address, ports.port))
		if err != nil {
			return err
		}
		go forward(listener, fmt.Sprintf("127.0.0.1:%d", behind+i))
		one.listeners = append(one.listeners, listener)
	}
	process, err := start(p.log(at.namespace, one.name), environment, p.echo)
	one.process = process
	return err
}

// caller is where a pod takes commands.
func (p *Pods) caller(namespace, name string) (string, bool) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	for at, pods := range p.running {
		for _, one := range pods {
			if at.namespace == namespace && one.name == name && one.caller != "" {
				return one.caller, true
			}
		}
	}
	return "", false
}

func (p *Pods) stop(namespace string, one *pod) {
	_, _ = p.cluster.store.Delete(key{p.cluster.kinds.of("", "Pod"), namespace, one.name})
	for _, listener := range one.listeners {
		listener.Close()
	}
	if one.process != nil {
		one.process.stop()
	}
}

// forward leads every connection of a pod's port to its server. A server that is gone resets the connection.
func forward(listener net.Listener, to string) {
	for {
		from, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer from.Close()
			server, err := net.Dial("tcp", to)
			if err != nil {
				_ = from.(*net.TCPConn).SetLinger(0)
				return
			}
			defer server.Close()
			done := make(chan struct{})
			go func() {
				pipe(server, from)
				close(done)
			}()
			pipe(from, server)
			<-done
		}()
	}
}

// pipe carries bytes one way, and their end.
func pipe(to, from net.Conn) {
	_, _ = io.Copy(to, from)
	_ = to.(*net.TCPConn).CloseWrite()
}

// slices keeps one EndpointSlice for each Service that has a selector.
func (p *Pods) slices() error {
	services := map[string]bool{}
	for _, object := range p.cluster.store.List(p.cluster.kinds.of("", "Service"), "", labels.Everything()) {
		var service core.Service
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &service); err != nil {
			return err
		}
		if len(service.Spec.Selector) == 0 {
			continue
		}
		services[service.Namespace+"/"+service.Name] = true
		if err := p.cluster.put(p.slice(&service)); err != nil {
			return err
		}
	}
	kind := p.cluster.kinds.of("discovery.k8s.io", "EndpointSlice")
	managed := labels.SelectorFromSet(labels.Set{discovery.LabelManagedBy: managedBy})
	for _, slice := range p.cluster.store.List(kind, "", managed) {
		if !services[slice.GetNamespace()+"/"+slice.GetLabels()[discovery.LabelServiceName]] {
			if _, err := p.cluster.store.Delete(key{kind, slice.GetNamespace(), slice.GetName()}); err != nil {
				return err
			}
		}
	}
	return nil
}

// managedBy tells our EndpointSlices from those that the suite makes itself.
const managedBy = "conformance"

func (p *Pods) slice(service *core.Service) *discovery.EndpointSlice {
	slice := &discovery.EndpointSlice{
		TypeMeta: meta.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"},
		ObjectMeta: meta.ObjectMeta{
			Namespace: service.Namespace, Name: service.Name + "-pods",
			Labels: map[string]string{
				discovery.LabelServiceName: service.Name, discovery.LabelManagedBy: managedBy,
			},
		},
		AddressType: discovery.AddressTypeIPv4,
		Endpoints:   []discovery.Endpoint{},
	}
	for _, port := range service.Spec.Ports {
		number := port.TargetPort.IntVal
		if number == 0 {
			number = port.Port
		}
		protocol := port.Protocol
		if protocol == "" {
			protocol = core.ProtocolTCP
		}
		slice.Ports = append(slice.Ports, discovery.EndpointPort{Name: &port.Name, Port: &number, Protocol: &protocol})
	}
	selector := labels.SelectorFromSet(service.Spec.Selector)
	for _, object := range p.cluster.store.List(p.cluster.kinds.of("", "Pod"), service.Namespace, selector) {
		var found core.Pod
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &found); err != nil {
			continue
		}
		ready := true
		slice.Endpoints = append(slice.Endpoints, discovery.Endpoint{
			Addresses:  []string{found.Status.PodIP},
			Conditions: discovery.EndpointConditions{Ready: &ready},
			TargetRef:  &core.ObjectReference{Kind: "Pod", Namespace: found.Namespace, Name: found.Name},
		})
	}
	return slice
}
