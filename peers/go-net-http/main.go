// Go's net/http, stopped as the example of http.Server.Shutdown does it.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

var chunk = bytes.Repeat([]byte("x"), 64*1024)

func main() {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", ok)
	mux.HandleFunc("GET /fast", ok)
	mux.HandleFunc("GET /slow", slow)
	mux.HandleFunc("GET /big", big)
	mux.HandleFunc("GET /events", events)
	mux.HandleFunc("POST /upload", upload)
	server := &http.Server{Addr: "127.0.0.1:" + os.Args[1], Handler: mux}

	stopped := make(chan struct{})
	go func() {
		asked := make(chan os.Signal, 1)
		signal.Notify(asked, os.Interrupt, syscall.SIGTERM)
		<-asked
		if err := server.Shutdown(context.Background()); err != nil {
			log.Print(err)
		}
		close(stopped)
	}()

	if err := serve(server); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
	<-stopped
}

// serve takes a socket that is passed (sd_listen_fds(3)), if there is one.
func serve(server *http.Server) error {
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return server.ListenAndServe()
	}
	listener, err := net.FileListener(os.NewFile(3, "listener"))
	if err != nil {
		return err
	}
	return server.Serve(listener)
}

func ok(w http.ResponseWriter, _ *http.Request) {
	io.WriteString(w, "ok")
}

func slow(w http.ResponseWriter, r *http.Request) {
	ms, _ := strconv.Atoi(r.FormValue("ms"))
	time.Sleep(time.Duration(ms) * time.Millisecond)
	io.WriteString(w, "ok")
}

func big(w http.ResponseWriter, r *http.Request) {
	mib, _ := strconv.Atoi(r.FormValue("mib"))
	w.Header().Set("Content-Length", strconv.Itoa(mib<<20))
	for range (mib << 20) / len(chunk) {
		if _, err := w.Write(chunk); err != nil {
			return
		}
	}
}

func events(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	for r.Context().Err() == nil {
		time.Sleep(20 * time.Millisecond)
		io.WriteString(w, "data: more\n\n")
		w.(http.Flusher).Flush()
	}
}

func upload(w http.ResponseWriter, r *http.Request) {
	n, err := io.Copy(io.Discard, r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	fmt.Fprintf(w, "got %d", n)
}
