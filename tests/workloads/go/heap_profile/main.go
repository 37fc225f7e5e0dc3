// heap_profile allocates in many ways, and says what runtime/pprof writes of it, by stack.
//
// The surprise: the collector is off but for two collections after each filling, which publish the profile. So it
// stays what it was, however often it is read.
package main

import (
	"bytes"
	"math"
	"runtime"
	"runtime/debug"
	"runtime/pprof"

	"leakprobe/workloads/contract"
)

const (
	smallObjects = 60_000
	largeObjects = 5
	largeBytes   = 3 << 20
	// The runtime keeps 128 callers of an allocation.
	deepCalls = 300
)

type node struct {
	next *node
	room [48]byte
}

type stack[T any] struct{ items []*T }

var (
	list   *node
	slices [][]byte
	table  = map[int]*[3]uint64{}
	texts  []string
	ints   stack[[100]int32]
	floats stack[[7]float64]
)

// newNode is small enough to be inlined, and so is what calls it.
func newNode(next *node) *node { return &node{next: next} }

func prepend() { list = newNode(list) }

//go:noinline
func growList(count int) {
	for ; count > 0; count-- {
		prepend()
	}
}

//go:noinline
func (s *stack[T]) push(count int) {
	for ; count > 0; count-- {
		s.items = append(s.items, new(T))
	}
}

//go:noinline
func keep(bytes int) {
	slice := make([]byte, bytes)
	for offset := 0; offset < len(slice); offset += contract.PageBytes {
		slice[offset] = 1
	}
	slices = append(slices, slice)
}

//go:noinline
func keepTwice(bytes int) {
	keep(bytes)
	keep(bytes)
}

//go:noinline
func keepDeep(depth int) int {
	if depth == 0 {
		keep(16 << 20) // one sample in 512 KiB on average: that all miss it happens once in 10^14 runs
		return 0
	}
	return keepDeep(depth-1) + 1
}

//go:noinline
func each(count int, call func(int)) {
	for number := 0; number < count; number++ {
		call(number)
	}
}

func fill(count int) {
	growList(count * smallObjects)
	ints.push(count * smallObjects / 10)
	floats.push(count * smallObjects)
	for number := 0; number < count*largeObjects; number++ {
		keep(largeBytes)
	}
	keepTwice(700_000)
	keepDeep(deepCalls)
	each(count*smallObjects, func(number int) { table[number+len(table)] = &[3]uint64{uint64(number)} })
	each(count*smallObjects, func(number int) { texts = append(texts, string(make([]byte, 100+number%900))) })
	done := make(chan bool)
	go func() {
		keep(5 << 20)
		done <- true
	}()
	<-done
}

// published makes the profile show everything until now.
func published() {
	runtime.GC()
	runtime.GC()
}

func profile() contract.Truth {
	var written bytes.Buffer
	if err := pprof.WriteHeapProfile(&written); err != nil {
		contract.Fail("write the heap profile", err)
	}
	sites, err := inUseByStack(written.Bytes())
	if err != nil {
		contract.Fail("read the heap profile", err)
	}
	return contract.Truth{"sites": sites}
}

func main() {
	contract.Begin()
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(math.MaxInt64)
	contract.Hello("go/heap_profile", contract.Truth{})
	contract.Answer(map[string]func(int) contract.Truth{
		"rate": func(bytes int) contract.Truth {
			runtime.MemProfileRate = bytes
			return contract.Truth{}
		},
		"fill": func(count int) contract.Truth {
			fill(count)
			published()
			return contract.Truth{}
		},
		"profile": func(int) contract.Truth { return profile() },
	})
}
