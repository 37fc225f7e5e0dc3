// plugged is a plug-in: its code runs on the runtime of the program that opens it.
package main

// Kept is what the plug-in holds.
var Kept [][]byte

// Hold keeps blocks, and goroutines that wait.
func Hold(blocks, blockBytes, goroutines int) {
	for ; blocks > 0; blocks-- {
		block := make([]byte, blockBytes)
		for offset := range block {
			block[offset] = 1
		}
		Kept = append(Kept, block)
	}
	for ; goroutines > 0; goroutines-- {
		go waitInThePlugin()
	}
}

//go:noinline
func waitInThePlugin() {
	select {}
}

func main() {}
