// plugin_host opens the plug-in named on its command line and has it hold some heap and goroutines.
package main

import (
	"os"
	"plugin"
	"runtime"

	"leakprobe/workloads/contract"
)

const (
	blocks     = 16
	blockBytes = 1 << 20
	goroutines = 40
)

func main() {
	contract.Begin()
	opened, err := plugin.Open(os.Args[1])
	if err != nil {
		contract.Fail("open the plug-in", err)
	}
	hold, err := opened.Lookup("Hold")
	if err != nil {
		contract.Fail("find Hold in the plug-in", err)
	}
	hold.(func(int, int, int))(blocks, blockBytes, goroutines)
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	contract.Hello("go/plugin_host", contract.Truth{
		"heap_inuse": stats.HeapInuse,
		"goroutines": runtime.NumGoroutine(),
		"runtimes":   1,
	})
	contract.Answer(nil)
}
