// http_server is an ordinary service: it answers each request with a small JSON document that it makes for it.
// Whoever measures it sends the requests.
package main

import (
	"encoding/json"
	"net"
	"net/http"

	"leakprobe/workloads/contract"
)

type item struct {
	Name  string
	Price int
	Tags  []string
}

func answer(response http.ResponseWriter, request *http.Request) {
	items := make([]item, 0, 20)
	for index := 0; index < cap(items); index++ {
		items = append(items, item{request.URL.Path, index, []string{"new", "shipped"}})
	}
	response.Header().Set("Content-Type", "application/json")
	// Who asked may be gone: the load ends whenever it likes.
	_ = json.NewEncoder(response).Encode(items)
}

func main() {
	contract.Begin()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		contract.Fail("listen on the loopback", err)
	}
	go func() {
		contract.Fail("serve HTTP", http.Serve(listener, http.HandlerFunc(answer)))
	}()
	contract.Hello("go/http_server", contract.Truth{"address": listener.Addr().String()})
	contract.Answer(nil)
}
