"""Flask on its own server, as its Quickstart runs it: without a handler for SIGTERM."""

import itertools
import time

from flask import Flask, Response, request

CHUNK = b"x" * (64 * 1024)

app = Flask(__name__)


@app.get("/")
@app.get("/fast")
def fast():
    return "ok"


@app.get("/slow")
def slow():
    time.sleep(request.args.get("ms", type=int) / 1000)
    return "ok"


@app.get("/big")
def big():
    length = request.args.get("mib", type=int) * 2**20
    chunks = (CHUNK for _ in range(length // len(CHUNK)))
    return Response(chunks, headers={"Content-Length": str(length)})


@app.get("/events")
def events():
    gap = request.args.get("gap", 20, type=int) / 1000
    # Without a count there is no end.
    count = request.args.get("count", type=int)
    numbers = itertools.count() if count is None else range(count)

    def stream():
        for _ in numbers:
            time.sleep(gap)
            yield b"data: more\n\n"

    return Response(stream(), mimetype="text/event-stream")


@app.post("/upload")
def upload():
    count = 0
    while chunk := request.stream.read(len(CHUNK)):
        count += len(chunk)
    return f"got {count}"
