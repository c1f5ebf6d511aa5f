// Beego, stopped by the switch that its documentation has for it; with the word "default" behind the
// port as its quickstart runs it, which stops nothing.
package main

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/beego/beego/v2/server/web"
	"github.com/beego/beego/v2/server/web/context"
)

var chunk = bytes.Repeat([]byte("x"), 64*1024)

func main() {
	web.Get("/", ok)
	web.Get("/fast", ok)
	web.Get("/slow", slow)
	web.Get("/big", big)
	web.Get("/events", events)
	web.Post("/upload", upload)

	web.BConfig.Listen.Graceful = len(os.Args) < 3 || os.Args[2] != "default"
	web.Run("127.0.0.1:" + os.Args[1])
}

func ok(c *context.Context) {
	c.WriteString("ok")
}

func slow(c *context.Context) {
	ms, _ := strconv.Atoi(c.Input.Query("ms"))
	time.Sleep(time.Duration(ms) * time.Millisecond)
	c.WriteString("ok")
}

func big(c *context.Context) {
	mib, _ := strconv.Atoi(c.Input.Query("mib"))
	c.Output.Header("Content-Length", strconv.Itoa(mib<<20))
	for range (mib << 20) / len(chunk) {
		if _, err := c.ResponseWriter.Write(chunk); err != nil {
			return
		}
	}
}

func events(c *context.Context) {
	gap, err := strconv.Atoi(c.Input.Query("gap"))
	if err != nil {
		gap = 20
	}
	// Without a count there is no end.
	count, _ := strconv.Atoi(c.Input.Query("count"))
	c.Output.Header("Content-Type", "text/event-stream")
	for sent := 0; c.Request.Context().Err() == nil && (count == 0 || sent < count); sent++ {
		time.Sleep(time.Duration(gap) * time.Millisecond)
		io.WriteString(c.ResponseWriter, "data: more\n\n")
		c.ResponseWriter.Flush()
	}
}

func upload(c *context.Context) {
	n, err := io.Copy(io.Discard, c.Request.Body)
	if err != nil {
		c.Output.SetStatus(http.StatusBadRequest)
		c.WriteString(err.Error())
		return
	}
	c.WriteString("got " + strconv.FormatInt(n, 10))
}
