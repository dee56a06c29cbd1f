"""Attacks on what the server stands on: descriptors, the disk, the processor, the network.  Each ruins its server."""

import contextlib
import os
import select
import shutil
import subprocess
import sys
import time

from queueber import api
from queueber.rpc import encoder
from tests.hostile.arena import ROOT, limits
from tests.hostile.attack import attack, turns
from tests.hostile.pieces import call
from tests.support.peer import TIMEOUT_SECONDS, Gone, Peer, adding

NET = "queueber-hostile"
SERVER_ADDRESS, CLIENT_ADDRESS = "10.213.77.1", "10.213.77.2"


def tools(*names):
    """Return the reason why this cannot be done here, or None."""
    missing = [name for name in names if shutil.which(name) is None]
    if missing:
        return f"{', '.join(missing)} not installed"
    return "needs root" if os.geteuid() else None


@attack("O1", *limits(first_message_ms=10_000), alone=True, files=512)
def connections_until_descriptors_run_out(arena):
    """Of 512 files that the server may have open, 267 may be connections; clients that are served notice nothing."""
    before, served = arena.lines(), 0
    for peer in [arena.connect() for _ in range(400)]:
        with contextlib.suppress(Gone):
            peer.bootstrap()
            served += 1
    assert 200 < served <= 267
    # The store makes a note of what is on disk every second, and needs a file for it.
    time.sleep(max(1.5, arena.seconds))
    lines = arena.lines() - before
    assert lines < 10, arena.server.lines[before:]
    arena.close()
    arena.settled(5)
    for _ in range(10):
        peer = arena.connect()
        peer.bootstrap()
        peer.close()
    return f"{served} of 400 served, the others closed at once; new ones served afterwards; {lines} lines of log"


@attack("O11", alone=True, why_not=tools("strace"), p99_ms=None)
def a_disk_that_hangs(arena):
    """During a long fsync nothing is acknowledged, the reactor goes on, and nothing is lost."""
    seconds = 30 if arena.full else 6
    peer, other = arena.connect(), arena.connect()
    peer.bootstrap()
    other.bootstrap()
    with stalled(arena, seconds):
        began = time.monotonic()
        target = peer.queue("stalled")
        question = peer.ask(api.ADD, adding(b"waits"), target)
        peer.flush()
        held = flooded_while_stalled(other)
        # The window of calls in flight, and the buffers of both sockets.
        assert held < 24 << 20
        early = "acknowledged before it was on disk, or the reactor stood still, too"
        assert not select.select([peer.socket], [], [], 0)[0], early
        peer.outcome(question)
        took = time.monotonic() - began
        assert took > seconds * 0.9
    assert [bytes(item.contents) for item in peer.poll(1, target=target).items] == [b"waits"]
    return f"acknowledged after {took:.1f} s; of a flood of 40 MiB meanwhile {held >> 20} were taken"


def flooded_while_stalled(peer):
    """Send adds of 40 MiB; return how many bytes were taken, those in the buffers of the kernel included."""
    for _ in range(40):
        peer.ask(api.ADD, adding(bytes(1 << 20)))
    data, sent = peer.connection.data_to_send(), 0
    while select.select([], [peer.socket], [], 1)[1]:
        sent += peer.socket.send(data[sent : sent + (64 << 10)])
    assert not select.select([peer.socket], [], [], 0)[0], "refused, or acknowledged before it was on disk"
    peer.close()
    return sent


@attack("O11", *limits(pending_bytes=16 << 20), alone=True, why_not=tools("strace"), p99_ms=None)
def calls_without_writes_while_the_disk_hangs(arena):
    """Peers connect, make calls that change nothing, and disconnect: the memory that is kept for them is bounded."""
    seconds = 20 if arena.full else 4
    peer = arena.connect()
    peer.bootstrap()
    target, content = peer.queue("stalled"), api.write_remove_request(api.RemoveRequest(bytes(16), bytes(16)))
    many = [call(content, question=number, method=api.REMOVE) for number in range(1, 1_001)]
    many = encoder.bootstrap(0) + b"".join(many)
    before, count = arena.server.memory(), 0
    arena.forget_peak()
    with stalled(arena, seconds):
        question = peer.ask(api.ADD, adding(b"waits"), target)
        peer.flush()
        end = time.monotonic() + 0.7 * seconds
        while time.monotonic() < end:
            other = Peer(arena.port)
            other.send(many)
            other.receive()
            other.close()
            count += 1_000
        peer.outcome(question)
    grown = arena.server.memory("VmHWM") - before
    assert grown < 100
    return f"{count:,} removes of nothing; {grown:.0f} MiB more memory"


@contextlib.contextmanager
def stalled(arena, seconds):
    """Let the next fsync take *seconds*."""
    # The count of `when` is kept for each thread; the commits here are made by whichever of the pool is free.
    stall = f"fdatasync:delay_enter={seconds * 1_000_000}:when=1"
    tracer = subprocess.Popen(
        ["strace", "-f", "-p", str(arena.pid), "-o", "/dev/null", "-e", "trace=fdatasync", "-e", f"inject={stall}"],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert "attached" in tracer.stderr.readline()
        time.sleep(0.2)
        yield
    finally:
        tracer.terminate()
        tracer.wait(TIMEOUT_SECONDS)
        tracer.stderr.close()


@attack("O15 K8", alone=True, p99_ms=None)
def a_starved_processor(arena):
    """Busy loops take the processor; leases are still measured by the clock."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count())]
    os.setpriority(os.PRIO_PROCESS, arena.pid, 19)
    peer, count = arena.connect(), 0
    target = peer.queue("starved")
    try:
        for _ in turns(arena):
            peer.add(b"slow", target=target)
            began = time.monotonic()
            first = peer.poll(1, target=target, lease=1_000)
            again = peer.poll(1, target=target, wait=100_000)
            assert time.monotonic() - began >= 1.0, "handed out again before its lease was over"
            assert [item.attempt for item in again.items] == [2]
            assert not peer.remove(first.items[0].id, first.lease, target=target)
            assert peer.remove(again.items[0].id, again.lease, target=target)
            count += 1
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
        os.setpriority(os.PRIO_PROCESS, arena.pid, 0)
    return f"{count} leases of 1 s, none shorter"


# Networks


@contextlib.contextmanager
def network(*shaping):
    """Join a second network stack to this one by a cable; `tc` changes its end of it."""
    lines = [
        f"ip netns add {NET}",
        f"ip link add qbh0 type veth peer name qbh1 netns {NET}",
        f"ip addr add {SERVER_ADDRESS}/30 dev qbh0",
        "ip link set qbh0 up",
        f"ip -n {NET} addr add {CLIENT_ADDRESS}/30 dev qbh1",
        f"ip -n {NET} link set qbh1 up",
        *shaping,
    ]
    try:
        for line in lines:
            subprocess.run(line.split(), check=True, capture_output=True)
        yield
    finally:
        # The cable would stay for a while, as long as something in the other network still uses it.
        for line in ("ip link del qbh0", f"ip netns del {NET}"):
            subprocess.run(line.split(), check=False, capture_output=True)


def beyond(program, *arguments):
    """Run a Python program in the other network."""
    return subprocess.Popen(
        ["ip", "netns", "exec", NET, sys.executable, "-c", program, *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


def reachable(arena):
    """The port on which the server listens in every network."""
    return int(arena.server.line(r"Listening on 0\.0\.0\.0:(\d+)")[1])


EVERYWHERE = ("--listen=127.0.0.1:0", "--listen=0.0.0.0:0", "--insecure-plaintext")

WAITING = """
import sys, time
from tests.support.peer import Peer, polling
peer = Peer(int(sys.argv[2]), host=sys.argv[1])
peer.ask(2, polling(1, wait=None), peer.queue("far"))
peer.flush()
peer.bootstrap()
print("waits", flush=True)
time.sleep(600)
"""

SLOW = """
import sys, time
from tests.support.peer import Peer
peer = Peer(int(sys.argv[2]), host=sys.argv[1])
target, sent = peer.queue("slow"), 0
end = time.monotonic() + float(sys.argv[3])
while not sent or time.monotonic() < end:
    contents = [bytes([number]) * 4096 for number in range(5)]
    peer.add(*contents, target=target)
    found = peer.poll(5, target=target)
    assert [bytes(item.contents) for item in found.items] == contents
    assert all(peer.remove(item.id, found.lease, target=target) for item in found.items)
    sent += 1
print(sent)
"""


@attack("K5", *EVERYWHERE, alone=True, why_not=tools("ip"), full_only=True)
def a_cable_that_is_pulled(arena):
    """Neither end is notified: the server must find out by itself."""
    with network():
        sockets = arena.sockets()
        far = beyond(WAITING, SERVER_ADDRESS, reachable(arena))
        try:
            assert far.stdout.readline() == "waits\n"
            assert arena.sockets() == sockets + 1
            subprocess.run(["ip", "link", "set", "qbh0", "down"], check=True)
            began = time.monotonic()
            while arena.sockets() > sockets:
                assert time.monotonic() - began < 75, "the server still holds the connection"
                time.sleep(0.5)
            took = time.monotonic() - began
        finally:
            far.kill()
            far.wait()
            far.stdout.close()
    keeper = arena.connect()
    queue = keeper.queue("far")
    keeper.add(b"for another", target=queue)
    assert keeper.poll(1, target=queue).items[0].attempt == 1
    return f"closed after {took:.0f} s, its poll was given nothing"


@attack("K6", *EVERYWHERE, alone=True, why_not=tools("ip", "tc"))
def a_slow_link(arena):
    """512 kbit/s each way."""
    shape = "root tbf rate 512kbit burst 3000 latency 400ms"
    with network(f"tc qdisc add dev qbh0 {shape}", f"tc -n {NET} qdisc add dev qbh1 {shape}"):
        far = beyond(SLOW, SERVER_ADDRESS, reachable(arena), arena.seconds)
        try:
            rounds = far.stdout.read()
            assert far.wait(TIMEOUT_SECONDS) == 0
        finally:
            far.kill()
            far.stdout.close()
    return f"{int(rounds)} rounds of 20 KiB there and back, all correct"
