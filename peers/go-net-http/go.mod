module sundown/peers/go-net-http

go 1.25.0
