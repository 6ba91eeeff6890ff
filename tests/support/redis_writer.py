"""Writes to a Redis as fast as single commands go, and says how far it has got, in a container beside the server.

Arguments: port, password or an empty one. A line is `<number> <seconds since the epoch> <longest gap since the last
line>`: all writes up to that number have been acknowledged. Keys are `n:<number>`; `last` holds the number.
"""

import socket
import sys
import time

port, password = sys.argv[1:]
connection = socket.create_connection(("127.0.0.1", int(port)))
replies = connection.makefile("rb")


def command(*words: str) -> bytes:
    parts = [word.encode() for word in words]
    connection.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts))
    return replies.readline()


if password:
    assert command("AUTH", password) == b"+OK\r\n"
number, gap, before = 0, 0.0, time.time()
while True:
    number += 1
    assert command("MSET", f"n:{number}", "x" * 100, "last", str(number)) == b"+OK\r\n"
    now = time.time()
    gap, before = max(gap, now - before), now
    if number % 50 == 0:
        print(number, f"{now:.6f}", f"{gap:.6f}", flush=True)
        gap = 0.0
