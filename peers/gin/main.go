// Gin, stopped as the graceful shutdown page of its documentation does it; with the word "default"
// behind the port as its quickstart runs it, which stops nothing.
package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/gin-gonic/gin"
)

var chunk = bytes.Repeat([]byte("x"), 64*1024)

func main() {
	gin.SetMode(gin.ReleaseMode)
	router := gin.New()
	router.Use(gin.Recovery())
	router.GET("/", ok)
	router.GET("/fast", ok)
	router.GET("/slow", slow)
	router.GET("/big", big)
	router.GET("/events", events)
	router.POST("/upload", upload)
	if len(os.Args) > 2 && os.Args[2] == "default" {
		log.Fatal(router.Run("127.0.0.1:" + os.Args[1]))
	}
	server := &http.Server{Addr: "127.0.0.1:" + os.Args[1], Handler: router.Handler()}

	go func() {
		if err := server.ListenAndServe(); err != nil && !errors.Is(err, http.ErrServerClosed) {
			log.Fatal(err)
		}
	}()

	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGINT, syscall.SIGTERM)
	<-asked

	// Five seconds are what the documentation gives it.
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		log.Fatal(err)
	}
}

func ok(c *gin.Context) {
	c.String(http.StatusOK, "ok")
}

func slow(c *gin.Context) {
	ms, _ := strconv.Atoi(c.Query("ms"))
	time.Sleep(time.Duration(ms) * time.Millisecond)
	c.String(http.StatusOK, "ok")
}

func big(c *gin.Context) {
	mib, _ := strconv.Atoi(c.Query("mib"))
	c.Header("Content-Length", strconv.Itoa(mib<<20))
	for range (mib << 20) / len(chunk) {
		if _, err := c.Writer.Write(chunk); err != nil {
			return
		}
	}
}

func events(c *gin.Context) {
	gap, _ := strconv.Atoi(c.DefaultQuery("gap", "20"))
	// Without a count there is no end.
	left, _ := strconv.Atoi(c.DefaultQuery("count", "-1"))
	c.Header("Content-Type", "text/event-stream")
	c.Stream(func(w io.Writer) bool {
		time.Sleep(time.Duration(gap) * time.Millisecond)
		_, err := io.WriteString(w, "data: more\n\n")
		left--
		return err == nil && left != 0
	})
}

func upload(c *gin.Context) {
	n, err := io.Copy(io.Discard, c.Request.Body)
	if err != nil {
		c.String(http.StatusBadRequest, err.Error())
		return
	}
	c.String(http.StatusOK, "got %d", n)
}
