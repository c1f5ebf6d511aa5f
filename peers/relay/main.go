// A relay as a Go service has it that traces by OpenTelemetry's own SDK: it passes on what it is sent, makes a span and
// a JSON line of each request, and sends its spans by OTLP where the environment says.
//
//	relay PORT UPSTREAM
package main

import (
	"context"
	"log"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/propagation"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	exporter, err := otlptracegrpc.New(ctx)
	if err != nil {
		log.Fatal(err)
	}
	provider := sdk.NewTracerProvider(sdk.WithBatcher(exporter))
	otel.SetTracerProvider(provider)
	otel.SetTextMapPropagator(propagation.TraceContext{})
	upstream, err := url.Parse(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(upstream)
	proxy.Transport = otelhttp.NewTransport(http.DefaultTransport)
	lines := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	relay := func(w http.ResponseWriter, r *http.Request) {
		span := trace.SpanContextFromContext(r.Context())
		lines.Info("relayed", "traceId", span.TraceID().String(), "spanId", span.SpanID().String())
		proxy.ServeHTTP(w, r)
	}
	server := &http.Server{
		Addr:    "127.0.0.1:" + os.Args[1],
		Handler: otelhttp.NewHandler(http.HandlerFunc(relay), "relay"),
	}
	go func() {
		if err := server.ListenAndServe(); err != http.ErrServerClosed {
			log.Fatal(err)
		}
	}()
	<-ctx.Done()
	late, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	server.Shutdown(late)
	provider.Shutdown(late)
}
