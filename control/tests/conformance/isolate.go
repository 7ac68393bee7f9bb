// A network of its own for everything the suite starts: a fresh network namespace that has nothing but loopback. So
// port 80 needs no root, nobody else's ports are in the way, and nothing leaves the machine.

package conformance

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// insideVariable is set for the program that runs inside.
const insideVariable = "RINGWAY_CONFORMANCE_INSIDE"

func isInside() bool {
	return os.Getenv(insideVariable) != ""
}

// runInside starts this program again, inside, and reads its outcome from the directory.
func runInside(directory string) (*Outcome, error) {
	if err := os.RemoveAll(directory); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(directory, 0o755); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(directory, "suite.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	again := exec.Command("/proc/self/exe", append([]string{"-test.v"}, os.Args[1:]...)...)
	again.Stdout, again.Stderr = log, os.Stderr
	again.Env = append(os.Environ(), insideVariable+"=1")
	again.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGTERM,
	}
	// Signals of a terminal reach both; the one inside ends everything and then itself.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	if err := again.Start(); err != nil {
		return nil, fmt.Errorf("cannot make a network namespace (are user namespaces allowed here?): %w", err)
	}
	go func() {
		for one := range signals {
			_ = again.Process.Signal(one)
		}
	}()
	// Its exit code says that some test failed, which may be just what is expected.
	_ = again.Wait()
	return readOutcome(directory)
}

// loopbackUp is `ip link set lo up`: loopback is down in a new namespace.
func loopbackUp() error {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(socket)
	loopback, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	loopback.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, loopback); err != nil {
		// Ubuntu lets anyone make a user namespace, and takes its rights away.
		return fmt.Errorf("cannot bring up loopback in the namespace, which root may: %w", err)
	}
	return nil
}
