"""A WSGI application for gunicorn, which stops by itself at SIGTERM."""

import itertools
import time
from urllib.parse import parse_qs

CHUNK = b"x" * (64 * 1024)


def app(environ, start_response):
    query = parse_qs(environ.get("QUERY_STRING", ""))
    match environ["REQUEST_METHOD"], environ["PATH_INFO"]:
        case "GET", "/" | "/fast":
            return answer(start_response, b"ok")
        case "GET", "/slow":
            time.sleep(int(query["ms"][0]) / 1000)
            return answer(start_response, b"ok")
        case "GET", "/big":
            length = int(query["mib"][0]) * 2**20
            start_response("200 OK", [("Content-Length", str(length))])
            return (CHUNK for _ in range(length // len(CHUNK)))
        case "GET", "/events":
            start_response("200 OK", [("Content-Type", "text/event-stream")])
            return events(query)
        case "POST", "/upload":
            return answer(start_response, b"got %d" % upload(environ["wsgi.input"]))
        case _:
            return answer(start_response, b"not found", "404 Not Found")


def answer(start_response, body, status="200 OK"):
    start_response(status, [("Content-Length", str(len(body)))])
    return [body]


def events(query):
    gap = int(query.get("gap", ["20"])[0]) / 1000
    # Without a count there is no end.
    numbers = range(int(query["count"][0])) if "count" in query else itertools.count()
    for _ in numbers:
        time.sleep(gap)
        yield b"data: more\n\n"


def upload(body):
    count = 0
    while chunk := body.read(len(CHUNK)):
        count += len(chunk)
    return count
