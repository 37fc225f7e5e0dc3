// goroutines blocks as many as asked for in three places: a channel, a mutex, a system call's poll.
package main

import (
	"os"
	"runtime"
	"sync"

	"leakprobe/workloads/contract"
)

var (
	channel = make(chan int)
	mutex   sync.Mutex
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
	reader, _, err := os.Pipe()
	if err != nil {
		contract.Fail("make a pipe", err)
	}
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
		go readForEver(&begun, reader)
	}
	begun.Wait()
	return receivers, lockers, readers
}

func main() {
	contract.Begin()
	mutex.Lock()
	contract.Hello("go/goroutines", contract.Truth{"goroutines": runtime.NumGoroutine()})
	contract.Answer(map[string]func(int) contract.Truth{"start": func(count int) contract.Truth {
		receivers, lockers, readers := startAll(count)
		runtime.GC()
		return contract.Truth{
			"goroutines": runtime.NumGoroutine(),
			"receivers":  receivers,
			"lockers":    lockers,
			"readers":    readers,
		}
	}})
}
