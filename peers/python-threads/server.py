"""http.server of Python, a thread a connection: without a handler for any signal."""

import itertools
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

CHUNK = b"x" * (64 * 1024)


class Handler(BaseHTTPRequestHandler):
    # Its default, HTTP/1.0, keeps no connection.
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        target = urlsplit(self.path)
        query = parse_qs(target.query)
        match target.path:
            case "/" | "/fast":
                self.answer(b"ok")
            case "/slow":
                time.sleep(int(query["ms"][0]) / 1000)
                self.answer(b"ok")
            case "/big":
                length = int(query["mib"][0]) * 2**20
                self.head(("Content-Length", str(length)))
                for _ in range(length // len(CHUNK)):
                    self.wfile.write(CHUNK)
            case "/events":
                self.events(query)
            case _:
                self.answer(b"not found", 404)

    def do_POST(self):
        left = length = int(self.headers["Content-Length"])
        while left > 0 and (chunk := self.rfile.read(min(left, len(CHUNK)))):
            left -= len(chunk)
        self.answer(b"got %d" % (length - left))

    def answer(self, body, status=200):
        self.head(("Content-Length", str(len(body))), status=status)
        self.wfile.write(body)

    def head(self, *headers, status=200):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()

    def events(self, query):
        gap = int(query.get("gap", ["20"])[0]) / 1000
        # Without a count there is no end.
        numbers = range(int(query["count"][0])) if "count" in query else itertools.count()
        self.head(("Content-Type", "text/event-stream"), ("Transfer-Encoding", "chunked"))
        event = b"data: more\n\n"
        for _ in numbers:
            time.sleep(gap)
            self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
