// What came out, beside what was expected: expected.txt names the tests that fail, with the reason, so that a new
// failure, a test that passes at last and one that is gone are all noticed.

package conformance

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

//go:embed expected.txt
var expectedText string

// Outcome is the result of each test that ran.
type Outcome struct {
	// Failed is by the name of the test.
	Failed map[string]bool
	// Complete means that the suite came to its end.
	Complete  bool
	directory string
}

func newOutcome(directory string) Outcome {
	return Outcome{Failed: map[string]bool{}, directory: directory}
}

func (o *Outcome) write() error {
	text, err := json.Marshal(o)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(o.directory, "outcome.json"), text, 0o644)
}

func readOutcome(directory string) (*Outcome, error) {
	outcome := newOutcome(directory)
	text, err := os.ReadFile(filepath.Join(directory, "outcome.json"))
	if err != nil {
		return nil, fmt.Errorf("the suite did not come to its end, see %s/suite.log", directory)
	}
	return &outcome, json.Unmarshal(text, &outcome)
}

// expected has the reason for each test that fails: lines of NAME: REASON.
func expected() map[string]string {
	expected := map[string]string{}
	for line := range strings.Lines(expectedText) {
		if name, reason, found := strings.Cut(strings.TrimSpace(line), ": "); found && !strings.HasPrefix(line, "#") {
			expected[name] = reason
		}
	}
	return expected
}

// judge prints the result and answers with an exit code: 0 if exactly what was expected failed.
func (o *Outcome) judge(to io.Writer) int {
	expected, passed, surprises := expected(), 0, 0
	for _, name := range slices.Sorted(maps.Keys(o.Failed)) {
		reason, known := expected[name]
		switch failed := o.Failed[name]; {
		case failed && known:
			fmt.Fprintf(to, "failed as expected: %s: %s\n", name, reason)
		case failed:
			surprises++
			fmt.Fprintf(to, "FAILED: %s\n", name)
		case known:
			passed, surprises = passed+1, surprises+1
			fmt.Fprintf(to, "PASSED: %s, though expected.txt says: %s\n", name, reason)
		default:
			passed++
		}
	}
	for _, name := range slices.Sorted(maps.Keys(expected)) {
		if _, ran := o.Failed[name]; !ran && *only == "" {
			surprises++
			fmt.Fprintf(to, "NOT RUN: %s, though expected.txt names it\n", name)
		}
	}
	fmt.Fprintf(to, "%d of %d tests passed; %d not as expected. Logs: %s\n",
		passed, len(o.Failed), surprises, o.directory)
	if surprises > 0 || !o.Complete {
		return 1
	}
	return 0
}
