// net-http tells what Go's net/http, on which Mimir runs, reads from some bytes: every request that comes to
// -listen is kept, and GET /take on -control returns those since the last time, as JSON, and forgets them.
package main

import (
	"encoding/json"
	"flag"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// request is one as net/http gives it to a handler. The body is what could be read of it.
type request struct {
	Method   string      `json:"method"`
	Target   string      `json:"target"`
	Path     string      `json:"path"`
	Query    string      `json:"query"`
	Protocol string      `json:"protocol"`
	Host     string      `json:"host"`
	Headers  http.Header `json:"headers"`
	Trailers http.Header `json:"trailers"`
	Codings  []string    `json:"codings"`
	Length   int64       `json:"length"`
	Body     []byte      `json:"body"`
	Problem  string      `json:"problem"`
}

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "address of what is tried")
	control := flag.String("control", "127.0.0.1:0", "address of /ready and /take")
	flag.Parse()

	var lock sync.Mutex
	kept := []request{}
	read := func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
		one := request{
			Method: r.Method, Target: r.RequestURI, Path: r.URL.Path, Query: r.URL.RawQuery, Protocol: r.Proto,
			Host: r.Host, Headers: r.Header, Trailers: r.Trailer, Codings: r.TransferEncoding,
			Length: r.ContentLength, Body: body,
		}
		if err != nil {
			one.Problem = err.Error()
		}
		lock.Lock()
		kept = append(kept, one)
		lock.Unlock()
		w.Header().Set("Content-Type", "text/plain")
		_, _ = io.WriteString(w, "read")
	}

	mux := http.NewServeMux()
	mux.HandleFunc("/ready", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ready") })
	mux.HandleFunc("/take", func(w http.ResponseWriter, _ *http.Request) {
		lock.Lock()
		taken := kept
		kept = []request{}
		lock.Unlock()
		_ = json.NewEncoder(w).Encode(taken)
	})
	go func() { log.Fatal(http.ListenAndServe(*control, mux)) }()

	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	// As Mimir's server: HTTP/1.1 and HTTP/2 without TLS, and no cleaning of paths before the handler.
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{
		Handler: http.HandlerFunc(read), ReadTimeout: 10 * time.Second, Protocols: &protocols,
		ErrorLog: log.New(os.Stdout, "", 0),
	}
	log.Fatal(server.Serve(listener))
}
