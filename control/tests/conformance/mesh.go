// Pods of the suite's mesh tests. Their image is not in the suite's module, so this is our own in its place, with what
// the suite reads of its output: a server that says what it was asked, and a client, run in a pod, that says what it
// was answered. The client is an application of `ringway run`, so every call goes through a sidecar. Servers are
// reached directly, as if they had none.

package conformance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// callerVariable is set for this program as the application of a sidecar: where it takes commands.
const callerVariable = "RINGWAY_CONFORMANCE_CALLER"

// callerPatience is how long a sidecar may take to start its application.
const callerPatience = 30 * time.Second

// meshPort is the HTTP port of the image.
const meshPort = 8080

// meshPod starts server and sidecar of a pod at an address; the client takes commands at the port.
func (p *Pods) meshPod(at key, one *pod, address string, port int) error {
	listener, err := net.Listen("tcp", fmt.Sprintf("%s:%d", address, meshPort))
	if err != nil {
		return err
	}
	go func() {
		_ = http.Serve(listener, say(one.name))
	}()
	one.listeners = append(one.listeners, listener)
	one.caller = fmt.Sprintf("127.0.0.1:%d", port)
	self, err := os.Executable()
	if err != nil {
		return err
	}
	log := p.log(at.namespace, one.name)
	arguments := []string{
		"run", "--name", one.name, "--namespace", at.namespace, "--port", strconv.Itoa(port),
		"--control", p.cluster.ringway.control(), "--drain-timeout", "1s", "--data-dir", strings.TrimSuffix(log, ".log"), "--", self,
	}
	ringway := filepath.Join(p.cluster.ringway.binaries, "ringway")
	if one.process, err = start(log, []string{callerVariable + "=" + one.caller}, ringway, arguments...); err != nil {
		return err
	}
	for began := time.Now(); ; time.Sleep(statusInterval) {
		if connection, err := net.Dial("tcp", one.caller); err == nil {
			return connection.Close()
		}
		if one.process.hasEnded() || time.Since(began) > callerPatience {
			return fmt.Errorf("the sidecar of %s did not start: see %s", one.name, log)
		}
	}
}

// say answers with what was asked, line by line.
func say(pod string) http.HandlerFunc {
	return func(answer http.ResponseWriter, request *http.Request) {
		fmt.Fprintf(answer, "Hostname=%s\nMethod=%s\nProto=%s\nURL=%s\nHost=%s\n",
			pod, request.Method, request.Proto, request.RequestURI, request.Host)
		for name, values := range request.Header {
			for _, value := range values {
				fmt.Fprintf(answer, "RequestHeader=%s:%s\n", name, value)
			}
		}
	}
}

// serveCommands is the application of a sidecar: it takes commands, runs them, and answers with their output.
func serveCommands(address string) error {
	return http.ListenAndServe(address, http.HandlerFunc(func(answer http.ResponseWriter, request *http.Request) {
		var command []string
		err := json.NewDecoder(request.Body).Decode(&command)
		var output string
		if err == nil {
			output, err = runClient(command)
		}
		if err != nil {
			http.Error(answer, err.Error(), http.StatusBadGateway)
			return
		}
		_, _ = io.WriteString(answer, output)
	}))
}

// runClient is the image's client: client URL [--method=METHOD] [-H NAME:VALUE]... [--count=COUNT].
func runClient(command []string) (string, error) {
	if len(command) < 2 || command[0] != "client" {
		return "", fmt.Errorf("unknown command %q", command)
	}
	count, method, headers := 1, http.MethodGet, http.Header{}
	for i, argument := range command {
		name, value, _ := strings.Cut(argument, "=")
		switch name {
		case "--method":
			method = value
		case "--count":
			count, _ = strconv.Atoi(value)
		case "-H":
			field, value, _ := strings.Cut(command[i+1], ":")
			headers.Add(field, value)
		}
	}
	var output strings.Builder
	for range count {
		if err := call(&output, method, command[1], headers); err != nil {
			return "", err
		}
	}
	return output.String(), nil
}

// call follows no redirect; the proxy is the one that the environment names.
func call(output io.Writer, method, url string, headers http.Header) error {
	request, err := http.NewRequest(method, url, nil)
	if err != nil {
		return err
	}
	request.Header, request.Host = headers, headers.Get("Host")
	answer, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	fmt.Fprintf(output, "StatusCode=%d\n", answer.StatusCode)
	for name, values := range answer.Header {
		fmt.Fprintf(output, "ResponseHeader=%s:%s\n", name, strings.Join(values, ","))
	}
	fmt.Fprintf(output, "%s\n", bytes.TrimSpace(body))
	// An empty line ends the answer.
	_, err = fmt.Fprintln(output)
	return err
}
