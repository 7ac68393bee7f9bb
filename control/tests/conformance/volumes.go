// Volumes of pods: the keys of a Secret or of a ConfigMap as files.

package conformance

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"

	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// mounts leads from paths in a pod to files of this machine.
type mounts map[string]string

// mount writes the files of a pod's first container below a directory. It is false while something that the volumes
// need is not there yet.
func (c *Cluster) mount(namespace string, spec core.PodSpec, directory string) (mounts, bool, error) {
	made := mounts{}
	for _, wanted := range spec.Containers[0].VolumeMounts {
		for _, volume := range spec.Volumes {
			if volume.Name != wanted.Name {
				continue
			}
			values, items, found := c.volume(namespace, volume)
			if !found {
				return nil, false, nil
			}
			to := filepath.Join(directory, volume.Name)
			if err := os.MkdirAll(to, 0o755); err != nil {
				return nil, false, err
			}
			for key, value := range values {
				name := key
				for _, item := range items {
					if item.Key == key {
						name = item.Path
					}
				}
				if err := os.WriteFile(filepath.Join(to, name), value, 0o644); err != nil {
					return nil, false, err
				}
			}
			made[wanted.MountPath] = to
		}
	}
	return made, true, nil
}

// volume is what is in a volume, and under which names.
func (c *Cluster) volume(namespace string, volume core.Volume) (map[string][]byte, []core.KeyToPath, bool) {
	var at key
	var items []core.KeyToPath
	switch {
	case volume.Secret != nil:
		at, items = key{c.kinds.of("", "Secret"), namespace, volume.Secret.SecretName}, volume.Secret.Items
	case volume.ConfigMap != nil:
		at, items = key{c.kinds.of("", "ConfigMap"), namespace, volume.ConfigMap.Name}, volume.ConfigMap.Items
	default:
		return nil, nil, true
	}
	object, err := c.store.Get(at)
	if err != nil {
		return nil, nil, false
	}
	written, _, _ := unstructured.NestedStringMap(object.Object, "data")
	values := map[string][]byte{}
	for name, value := range written {
		values[name] = []byte(value)
		if volume.Secret != nil {
			decoded, err := base64.StdEncoding.DecodeString(value)
			if err != nil {
				return nil, nil, false
			}
			values[name] = decoded
		}
	}
	return values, items, true
}

// of is where a path in the pod is on this machine.
func (m mounts) of(path string) string {
	for below, to := range m {
		if rest, found := strings.CutPrefix(path, below+"/"); found {
			return filepath.Join(to, rest)
		}
	}
	return path
}
