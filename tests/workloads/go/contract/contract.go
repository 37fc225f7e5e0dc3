// Package contract is how a Go workload talks to the harness: one JSON line of its own truth when it
// is ready, then one answer for each line on stdin, and the end of stdin is its end.
//
// The surprise: transparent huge pages are off for the whole process. The truth is counted in the
// bytes a program touched, and a huge page would make up to 2 MiB resident for one of them.
package contract

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// StepBytes is what one "grow" leaks, as near as the kind of memory allows.
const StepBytes = 1 << 20

// PageBytes is how far apart a program touches its memory.
const PageBytes = 4096

const prSetTHPDisable = 41

// Truth is one line of what the program knows about itself.
type Truth map[string]any

// Begin comes first in main.
func Begin() {
	syscall.RawSyscall6(syscall.SYS_PRCTL, prSetTHPDisable, 1, 0, 0, 0, 0)
}

// Hello says that the program is ready.
func Hello(workload string, truth Truth) {
	truth["workload"] = workload
	truth["pid"] = os.Getpid()
	say(truth)
}

// Answer blocks on stdin and answers each line with the handler of its first word, until stdin ends.
// The number behind the word is the handler's argument, 1 where there is none.
func Answer(handlers map[string]func(count int) Truth) {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		verb, rest, _ := strings.Cut(strings.TrimSpace(lines.Text()), " ")
		count, err := strconv.Atoi(rest)
		if err != nil {
			count = 1
		}
		handler := handlers[verb]
		if handler == nil {
			say(Truth{"error": "unknown command " + verb})
			continue
		}
		say(handler(count))
	}
}

// Leak is the whole life of a leak: some of it before the hello, the rest on "grow". The function makes
// count more steps resident for good and says how many bytes that were.
func Leak(workload string, firstSteps int, leak func(count int) int) {
	leaked := leak(firstSteps)
	Hello(workload, Truth{"leaked_bytes": leaked})
	Answer(map[string]func(int) Truth{"grow": func(count int) Truth {
		grown := leak(count)
		leaked += grown
		return Truth{"grown_bytes": grown, "leaked_bytes": leaked}
	}})
}

// Fail ends the program with a sentence.
func Fail(attempt string, err error) {
	fmt.Fprintf(os.Stderr, "%s: %v\n", attempt, err)
	os.Exit(1)
}

func say(truth Truth) {
	line, err := json.Marshal(truth)
	if err != nil {
		Fail("write the truth as JSON", err)
	}
	if _, err := os.Stdout.Write(append(line, '\n')); err != nil {
		Fail("write to stdout", err)
	}
}
