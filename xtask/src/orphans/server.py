"""Answers each line by what came of a socket of its own and of a look-up, and does the same before it ends."""

import os
import signal
import socket
import sys
import threading
import time

port, journal = int(sys.argv[1]), sys.argv[2]


def probe():
    try:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            with socket.create_connection(listener.getsockname(), 5):
                listener.accept()[0].close()
        # It binds a socket of netlink, too.
        socket.getaddrinfo("localhost", 80)
        return "ok"
    except OSError as error:
        return repr(error)


def note(what):
    with open(journal, "a") as lines:
        lines.write(f"{what}\n")


def serve(client):
    with client, client.makefile("rw") as lines:
        for line in lines:
            if line == "slow\n":
                time.sleep(0.15)
            answer = probe() if line == "probe\n" else "done"
            lines.write(f"{answer}\n")
            lines.flush()


def accept(listener):
    while True:
        client, _ = listener.accept()
        threading.Thread(target=serve, args=[client], daemon=True).start()


# Heard by the main thread only, which waits for it.
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("127.0.0.1", port))
listener.listen()
# What a worker of a real server does: it ends when its parent has.
read, write = os.pipe()
if os.fork() == 0:
    os.close(write)
    listener.close()
    os.read(read, 1)
    os._exit(0)
threading.Thread(target=accept, args=[listener], daemon=True).start()
note(f"ready {os.getpid()}")
signal.sigwait([signal.SIGTERM])
note(f"bye {os.getpid()} {probe()}")
