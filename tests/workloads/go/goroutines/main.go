// goroutines blocks as many as asked for in three places: a channel, a mutex, pipes.
package main

import (
	"os"
	"runtime"
	"runtime/metrics"
	"sync"

	"leakprobe/workloads/contract"
)

var (
	channel = make(chan int)
	mutex   sync.Mutex
	// Kept: an end of a pipe that is collected is closed, and those who read the other end wake up.
	writers []*os.File
)

//go:noinline
func receiveForEver(begun *sync.WaitGroup) {
	begun.Done()
	<-channel
}

//go:noinline
func lockForEver(begun *sync.WaitGroup) {
	begun.Done()
	mutex.Lock()
}

//go:noinline
func readForEver(begun *sync.WaitGroup, pipe *os.File) {
	begun.Done()
	pipe.Read(make([]byte, 1))
}

//go:noinline
func startAll(count int) (int, int, int) {
	var begun sync.WaitGroup
	receivers, lockers, readers := count, count/2, 3
	begun.Add(receivers + lockers + readers)
	for number := 0; number < receivers; number++ {
		go receiveForEver(&begun)
	}
	for number := 0; number < lockers; number++ {
		go lockForEver(&begun)
	}
	for number := 0; number < readers; number++ {
		reader, writer, err := os.Pipe()
		if err != nil {
			contract.Fail("make a pipe", err)
		}
		writers = append(writers, writer)
		go readForEver(&begun, reader)
	}
	begun.Wait()
	waitUntilBlocked()
	return receivers, lockers, readers
}

// waitUntilBlocked returns when nothing runs but its caller: who has begun is not blocked yet.
func waitUntilBlocked() {
	samples := []metrics.Sample{
		{Name: "/sched/goroutines/runnable:goroutines"},
		{Name: "/sched/goroutines/running:goroutines"},
	}
	for {
		metrics.Read(samples)
		if samples[0].Value.Uint64() == 0 && samples[1].Value.Uint64() <= 1 {
			return
		}
		runtime.Gosched()
	}
}

func stackBytes() uint64 {
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.StackInuse
}

func main() {
	contract.Begin()
	mutex.Lock()
	contract.Hello("go/goroutines", contract.Truth{"goroutines": runtime.NumGoroutine()})
	contract.Answer(map[string]func(int) contract.Truth{"start": func(count int) contract.Truth {
		before := stackBytes()
		receivers, lockers, readers := startAll(count)
		runtime.GC()
		return contract.Truth{
			"goroutines": runtime.NumGoroutine(),
			"receivers":  receivers,
			"lockers":    lockers,
			"readers":    readers,
			"new_stacks": stackBytes() - before,
		}
	}})
}
