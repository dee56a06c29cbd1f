"""
The good client of a live run, as a process of its own: `live_worker.py PORT`.

It works without a pause worth mentioning.  Each line on standard input is
answered with one line of JSON: `report` with what it did since the last, in
milliseconds; `account` once everything that was acknowledged has been found; `hold`, after which
it does nothing unasked; `reconnect PORT` when it has a new connection.  What is wrong ends
it, with a line that says so.
"""

import json
import select
import socket
import sys

from worker import Worker, Wrong

PAUSE_SECONDS = 0.004
PATIENCE_SECONDS = 120
RECV_BYTES = 1 << 18


def connected(port):
    """The connection of a `Worker`."""
    peer = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def exchange(data):
        peer.sendall(data)
        got = peer.recv(RECV_BYTES)
        if not got:
            raise Wrong("the server closed the good client's connection")
        return got

    return exchange


def report(worker):
    """Return the work since the last report."""
    latencies, worker.latencies = sorted(worker.latencies), []
    count = len(latencies)
    marks = {"p50": count // 2, "p99": count * 99 // 100, "max": count - 1}
    figures = {name: round(latencies[at] * 1e3, 3) for name, at in marks.items()} if count else {}
    return {"calls": count, "kept": len(worker.kept), **figures}


def main(port):
    """Work until standard input ends."""
    worker, pause = Worker(connected(port)), PAUSE_SECONDS
    while True:
        if not select.select([sys.stdin], [], [], pause)[0]:
            worker.turn()
            continue
        command, _, argument = sys.stdin.readline().strip().partition(" ")
        if not command:
            return
        answer = {}
        if command == "report":
            answer = report(worker)
        elif command == "account":
            answer = {"kept": len(worker.kept)}
            worker.account()
        elif command == "hold":
            pause = None
        else:
            kept = worker.kept
            worker = Worker(connected(int(argument)))
            worker.kept = kept
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    try:
        main(int(sys.argv[1]))
    except (Wrong, OSError) as why:
        print(json.dumps({"wrong": f"{type(why).__name__}: {why}"[:1000]}), flush=True)
        sys.exit(1)
