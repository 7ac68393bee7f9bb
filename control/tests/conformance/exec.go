// `kubectl exec` in a pod of the mesh: the command goes to the pod's client, its output over the streams of Kubernetes'
// remote command protocol.

package conformance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	core "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

// remoteCommandProtocol is its version in which an error is a Status, and no error is an empty stream.
const remoteCommandProtocol = "v4.channel.k8s.io"

// execute answers one request; the caller is the address of the pod's client.
func execute(answer http.ResponseWriter, request *http.Request, caller string) {
	if _, err := httpstream.Handshake(request, answer, []string{remoteCommandProtocol}); err != nil {
		return
	}
	opened := make(chan httpstream.Stream, 3)
	connection := spdy.NewResponseUpgrader().UpgradeResponse(answer, request,
		func(stream httpstream.Stream, _ <-chan struct{}) error {
			opened <- stream
			return nil
		})
	if connection == nil {
		return
	}
	defer connection.Close()
	// Standard output, standard error and the stream for errors.
	streams := map[string]httpstream.Stream{}
	for range cap(opened) {
		select {
		case stream := <-opened:
			streams[stream.Headers().Get(core.StreamType)] = stream
		case <-connection.CloseChan():
			return
		}
	}
	output, err := runIn(caller, request.URL.Query()["command"])
	if err != nil {
		failure := metav1.Status{Status: metav1.StatusFailure, Message: err.Error()}
		_ = json.NewEncoder(streams[core.StreamTypeError]).Encode(failure)
	} else {
		_, _ = streams[core.StreamTypeStdout].Write(output)
	}
	for _, stream := range streams {
		stream.Close()
	}
	// The other side closes the connection when it has read everything.
	<-connection.CloseChan()
}

func runIn(caller string, command []string) ([]byte, error) {
	text, err := json.Marshal(command)
	if err != nil {
		return nil, err
	}
	answer, err := http.Post("http://"+caller, "application/json", bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	output, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s", bytes.TrimSpace(output))
	}
	return output, err
}
