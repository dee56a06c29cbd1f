"""The output of a benchmark: a page with tables, a picture, and all figures as JSON."""

import json
import os
import platform
import sysconfig
from datetime import UTC, datetime

from matrix import HEADING, cells
from peers import PEERS
from scenarios import MIXED, MIXED_RANGE, WORDS, parsed

from queueber.loadgen.results import BarGroup, bar_chart

NAMES = {"fsync": "Queueber fsync", "os": "Queueber os", "none": "Queueber none", "pycapnp": "pycapnp RPC"}


def machine():
    """Describe the machine that the figures were measured on, without naming it."""
    optimized = "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "")
    build = f"{platform.python_implementation()} {platform.python_version()} with{'' if optimized else 'out'} PGO"
    return f"{len(os.sched_getaffinity(0))} shared {platform.machine().replace('_', '-')} cores, {build}"


def title(name):
    """A scenario in words."""
    it = parsed(name)
    size = f"{MIXED_RANGE[0]}-{MIXED_RANGE[1]:,} B" if it.size == MIXED else f"{it.size} B"
    connections = f"{it.connections} connection{'s' if it.connections > 1 else ''} x {it.window} in flight"
    return f"{WORDS[it.kind]}, {connections}, {it.items} items a call, {size}"


def write(folder, rows, rounds, options, kind, targets=None):
    """`peers.md`, `peers.svg` and `peers.json` in *folder*."""
    folder.mkdir(parents=True, exist_ok=True)
    about = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": machine(),
        "filesystem": kind,
        "rounds": rounds,
        "seconds": options.seconds,
        "warmup": options.warmup,
    }
    scenarios = list(dict.fromkeys(each["scenario"] for each in rows))
    (folder / "peers.json").write_text(json.dumps({**about, "rows": rows, "targets": targets}, indent=1) + "\n")
    (folder / "peers.md").write_text(page(about, rows, scenarios, targets))
    groups = [
        BarGroup(title(name), {NAMES.get(each["server"], each["server"]): each["rate"] for each in figures}, "items/s")
        for name in scenarios
        if (figures := [each for each in rows if each["scenario"] == name and "rate" in each])
    ]
    (folder / "peers.svg").write_text(
        bar_chart(f"Queueber next to its peers, {about['date']}, {about['machine']}", groups)
    )


HEAD = """
# Queueber next to its peers

Measured {date} on {machine}, {filesystem}, by `make bench`: medians of up to {rounds} rounds of {seconds:g} s
after {warmup:g} s of warm-up. Every figure is of a fresh server. The load generator ran on the same cores: `client` is
how busy it was, `busy` the server, in parts of one core. Servers next to each other promise different things; the first
table says what.

`cpu s/M` is the server's CPU seconds for a million items, `B/item` what it had written to the disk for each, `MiB` its
peak memory (of all its processes; pages that they share are counted in each). RabbitMQ sends messages unasked and
answers no acknowledgements: of taking it has a rate and no latencies.

![Items in a second](peers.svg)

| server | an acknowledged add has gone through |
|---|---|
"""


def page(about, rows, scenarios, targets):
    """The tables as a document."""
    lines = HEAD.format(**about).strip().splitlines()
    names = list(dict.fromkeys(each["server"] for each in rows))
    lines += [f"| {NAMES.get(name, name)} | {PEERS[name].says} |" for name in names]
    for target in targets or ():
        if target is targets[0]:
            lines += ["", "## What is aimed at", "", "| target | figure | aim | met |", "|---|---|---|---|"]
        figure = f"{target['value']:.2f}" if "value" in target else "-"
        met = "-" if "met" not in target else "yes" if target["met"] else "no"
        aim = f"{'>=' if target.get('at_least', True) else '<='} {target.get('bound', 0):g}"
        lines.append(f"| {target['target']} | {figure} | {aim} | {met} |")
    for name in scenarios:
        lines += ["", f"## {title(name)[0].upper()}{title(name)[1:]}", ""]
        heading = HEADING[1:]
        lines += [f"| {' | '.join(heading)} |", f"|---|{'---:|' * (len(heading) - 1)}"]
        for each in rows:
            if each["scenario"] == name:
                lines.append(f"| {NAMES.get(each['server'], each['server'])} | {' | '.join(cells(each))} |")
    return "\n".join(lines) + "\n"
