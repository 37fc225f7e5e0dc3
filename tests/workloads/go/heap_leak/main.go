// heap_leak keeps slices alive that nobody needs: the leak a Go heap profile does show.
package main

import "leakprobe/workloads/contract"

var retained [][]byte

//go:noinline
func retainSlices(count int) int {
	for step := 0; step < count; step++ {
		slice := make([]byte, contract.StepBytes)
		for offset := 0; offset < len(slice); offset += contract.PageBytes {
			slice[offset] = 1
		}
		retained = append(retained, slice)
	}
	return count * contract.StepBytes
}

func main() {
	contract.Begin()
	contract.Leak("go/heap_leak", 3, retainSlices)
}
