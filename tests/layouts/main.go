// Has the structures of the Go runtime in its debug information, those of the heap profile too: they are gone from
// programs that cannot reach it.
package main

import "runtime"

func main() {
	println(runtime.MemProfile(nil, false))
}
