"""An ASGI application for uvicorn, which stops by itself at SIGTERM and SIGINT."""

import asyncio
import itertools
from urllib.parse import parse_qs

CHUNK = b"x" * (64 * 1024)


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    query = parse_qs(scope["query_string"].decode())
    match scope["method"], scope["path"]:
        case "GET", "/" | "/fast":
            await answer(send, b"ok")
        case "GET", "/slow":
            await asyncio.sleep(int(query["ms"][0]) / 1000)
            await answer(send, b"ok")
        case "GET", "/big":
            await big(send, int(query["mib"][0]) * 2**20)
        case "GET", "/events":
            await events(send, query)
        case "POST", "/upload":
            await answer(send, b"got %d" % await upload(receive))
        case _:
            await answer(send, b"not found", status=404)


async def lifespan(receive, send):
    while True:
        event = (await receive())["type"]
        await send({"type": f"{event}.complete"})
        if event == "lifespan.shutdown":
            return


async def start(send, length, status=200):
    headers = [(b"content-length", b"%d" % length)]
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def answer(send, body, status=200):
    await start(send, len(body), status)
    await send({"type": "http.response.body", "body": body})


async def big(send, length):
    await start(send, length)
    for _ in range(length // len(CHUNK)):
        await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def events(send, query):
    gap = int(query.get("gap", ["20"])[0]) / 1000
    # Without a count there is no end.
    numbers = range(int(query["count"][0])) if "count" in query else itertools.count()
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for _ in numbers:
        await asyncio.sleep(gap)
        await send({"type": "http.response.body", "body": b"data: more\n\n", "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def upload(receive):
    count, more = 0, True
    while more:
        event = await receive()
        count += len(event.get("body", b""))
        more = event.get("more_body", False)
    return count
