// mmap_merged maps anonymous memory by turns from Go and from C, at addresses next to each other, so that the kernel
// makes one VMA of them; both then touch what they mapped.
//
// The surprise: one thread maps and touches, but a C thread that Go knows nothing of waits beside it.
package main

/*
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static __attribute__((noinline)) void *map_in_c(long bytes)
{
	char *start = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (start == MAP_FAILED)
		abort();
	return start;
}

static __attribute__((noinline)) void touch_in_c(char *start, long bytes)
{
	for (long offset = 0; offset < bytes; offset += 4096)
		((volatile char *)start)[offset] = 1;
}

static void *wait_for_ever(void *unused)
{
	(void)unused;
	while (pause())
		;
	return NULL;
}

static void start_thread(void)
{
	pthread_t thread;
	if (pthread_create(&thread, NULL, wait_for_ever, NULL))
		abort();
	pthread_setname_np(thread, "in-c-only");
}
*/
import "C"

import (
	"os"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"leakprobe/workloads/contract"
)

// Uneven, so that the two owners are not mistaken for each other, and less than a huge page, or the kernel leaves gaps
// to align them. Not much less: where not every fault of a storm gets a stack, each mapping should have some.
const (
	goBytes = 7 * contract.StepBytes / 4
	cBytes  = 5 * contract.StepBytes / 4
)

type mapped struct {
	goMemory []byte
	cMemory  unsafe.Pointer
}

var all []mapped

//go:noinline
func mapInGo() []byte {
	memory, err := syscall.Mmap(-1, 0, goBytes, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		contract.Fail("map memory", err)
	}
	return memory
}

//go:noinline
func touchInGo(memory []byte) {
	for offset := 0; offset < len(memory); offset += contract.PageBytes {
		memory[offset] = 1
	}
}

func mapBoth(count int) {
	for done := 0; done < count; done++ {
		all = append(all, mapped{goMemory: mapInGo(), cMemory: C.map_in_c(cBytes)})
	}
}

func touchBoth() {
	for _, pair := range all {
		touchInGo(pair.goMemory)
		C.touch_in_c((*C.char)(pair.cMemory), cBytes)
	}
}

// vmas counts the mappings that hold what was mapped.
func vmas() int {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		contract.Fail("read the own maps", err)
	}
	holders := map[string]bool{}
	for _, pair := range all {
		for _, addr := range []uintptr{uintptr(unsafe.Pointer(&pair.goMemory[0])), uintptr(pair.cMemory)} {
			for _, line := range strings.Split(string(maps), "\n") {
				if contains(line, addr) {
					holders[line] = true
				}
			}
		}
	}
	return len(holders)
}

func contains(line string, addr uintptr) bool {
	bounds, _, _ := strings.Cut(line, " ")
	start, end, found := strings.Cut(bounds, "-")
	return found && hex(start) <= addr && addr < hex(end)
}

func hex(text string) uintptr {
	value := uintptr(0)
	for _, digit := range []byte(text) {
		value = value<<4 | uintptr(strings.IndexByte("0123456789abcdef", digit))
	}
	return value
}

func truth(count int) contract.Truth {
	return contract.Truth{"go_bytes": count * goBytes, "c_bytes": count * cBytes, "vmas": vmas()}
}

func main() {
	contract.Begin()
	runtime.LockOSThread()
	C.start_thread()
	contract.Hello("go/mmap_merged", contract.Truth{})
	contract.Answer(map[string]func(int) contract.Truth{
		"map": func(count int) contract.Truth {
			mapBoth(count)
			return truth(count)
		},
		"touch": func(int) contract.Truth {
			touchBoth()
			return truth(len(all))
		},
	})
}
