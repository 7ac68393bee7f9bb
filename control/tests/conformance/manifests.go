// The suite's manifests, with one annotation added. The suite waits for every Gateway of its base manifests before its
// first test, and one of them has HTTPS listeners, which Ringway does not serve yet: the annotation, which the suite
// defines for that, takes this one out of the wait. Tests that use it still run, and fail.

package conformance

import (
	"bytes"
	"io"
	"io/fs"

	"sigs.k8s.io/gateway-api/conformance"
	"sigs.k8s.io/gateway-api/conformance/utils/kubernetes"
)

const notServed = "  name: same-namespace-with-https-listener\n"

// manifests is a file system.
type manifests struct{}

func (manifests) Open(name string) (fs.File, error) {
	file, err := conformance.Manifests.Open(name)
	if err != nil || name != "base/manifests.yaml" {
		return file, err
	}
	text, err := io.ReadAll(file)
	annotation := notServed + "  annotations: {" + kubernetes.GatewayExcludedFromReadinessChecks + ": \"true\"}\n"
	return &annotated{file, bytes.NewReader(bytes.Replace(text, []byte(notServed), []byte(annotation), 1))}, err
}

type annotated struct {
	fs.File
	text *bytes.Reader
}

func (a *annotated) Read(into []byte) (int, error) {
	return a.text.Read(into)
}
