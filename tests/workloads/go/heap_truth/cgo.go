//go:build with_cgo

package main

// #include <stdlib.h>
// #include <string.h>
//
// static void *keep(size_t bytes) {
//     return memset(malloc(bytes), 1, bytes);
// }
import "C"

// What C keeps, in blocks that come from its arena and in some that it maps one by one.
func init() {
	for count := 0; count < 2000; count++ {
		C.keep(4 << 10)
	}
	for count := 0; count < 4; count++ {
		C.keep(1 << 20)
	}
}
