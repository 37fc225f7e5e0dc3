// race_http is the demo: an HTTP server and its clients in one process, without keep-alives, built
// with -race. Its Go heap stays at a few MiB while its RSS climbs for ever, because every connection
// starts goroutines and the race detector keeps a record of each goroutine that ever was.
//
// It runs as fast as its clients can; "count" answers with the requests done so far.
package main

import (
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"leakprobe/workloads/contract"
)

const (
	clients       = 2
	firstRequests = 500
)

var requests atomic.Int64

func serve(listener net.Listener) {
	handler := http.HandlerFunc(func(response http.ResponseWriter, _ *http.Request) {
		io.WriteString(response, "hello\n")
	})
	contract.Fail("serve HTTP", http.Serve(listener, handler))
}

func flood(url string, warm chan<- struct{}) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for {
		if err := fetch(&client, url); err != nil {
			contract.Fail("fetch "+url, err)
		}
		if requests.Add(1) == firstRequests {
			close(warm)
		}
	}
}

func fetch(client *http.Client, url string) error {
	response, err := client.Get(url)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return err
}

func main() {
	contract.Begin()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		contract.Fail("listen on the loopback", err)
	}
	started := time.Now()
	warm := make(chan struct{})
	go serve(listener)
	for range [clients]struct{}{} {
		go flood("http://"+listener.Addr().String()+"/", warm)
	}
	<-warm
	count := func(int) contract.Truth {
		return contract.Truth{"requests": requests.Load(), "elapsed_ns": time.Since(started).Nanoseconds()}
	}
	contract.Hello("go/race_http", count(0))
	contract.Answer(map[string]func(int) contract.Truth{"count": count})
}
