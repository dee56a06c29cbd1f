"""The five ratios that are aimed at, all in one run."""

import sys
from statistics import median

from attrs import frozen
from scenarios import Scenario, parsed
from servers import Failed, Missing, load, running


@frozen
class Target:
    """One figure of ours, next to one of somebody else's."""

    says: str
    scenario: Scenario
    peer: str | None
    figure: str
    bound: float
    at_least: bool = True


ADD = parsed("add-4x64x1")
ADD_MANY = parsed("add-4x16x100")
DRAIN = parsed("take-16x16x10")
ONE = parsed("add-1x1x1")
REMOVE = parsed("remove-4x64x1")

TARGETS = (
    Target("add, 4 connections x 64: times beanstalkd-f0", ADD, "beanstalkd-f0", "rate", 10),
    Target("add, 4 connections x 64: times pycapnp", ADD, "pycapnp", "rate", 3),
    Target("add, 100 items a call, 6,400 in flight: times redis-always", ADD_MANY, "redis-always", "rate", 1),
    Target("poll 10 + remove each, 16 connections: times beanstalkd-f0", DRAIN, "beanstalkd-f0", "rate", 6),
    Target("one add at a time, p50: times beanstalkd-f0", ONE, "beanstalkd-f0", "p50_ms", 1.5, at_least=False),
    Target("reactor thread, us for each add", ADD, None, "thread_us", 20, at_least=False),
    Target("reactor thread, us for each remove", REMOVE, None, "thread_us", 20, at_least=False),
)


def figures(run):
    """What is told of one run of a load."""
    calls, items = run["calls"], max(1, run["items"])
    return {
        "rate": run["items"] / run["seconds"],
        "p50_ms": run["p50_ms"],
        "p99_ms": run["p99_ms"],
        "p999_ms": run["p999_ms"],
        "call_us": run["server_cpu"] / calls * 1e6,
        "thread_us": run["thread_cpu"] / calls * 1e6,
        "cpu_per_million": run["server_cpu"] / items * 1e6,
        "written": run["written"] / items,
        "peak": run["peak"],
        "client": run["client_cpu"] / run["seconds"],
        "busy": run["server_cpu"] / run["seconds"],
    }


def measured(name, scenario, scratch, options):
    """The figures of *scenario* on a fresh server."""
    with running(name, scratch) as (port, pid):
        return figures(load(name, port, pid, scenario, seconds=options.seconds, warmup=options.warmup))


def middle(runs):
    """Of each figure the median."""
    return {name: None if runs[0][name] is None else median(run[name] for run in runs) for name in runs[0]}


def loads():
    """The scenarios with the servers they are for, ours first: each once."""
    wanted = {}
    for target in TARGETS:
        for name in ("fsync", *filter(None, [target.peer])):
            wanted.setdefault((target.scenario, name), None)
    return list(wanted)


COLUMNS = "{:<14} {:<14} {:>10} {:>9} {:>9} {:>10} {:>7} {:>7}"


def measure_targets(options, scratch):
    """Print what was measured, then each target with what came of it; return all as values."""
    runs, missing = {}, set()
    for round_ in range(options.repeats):
        for scenario, name in loads():
            print(f"round {round_ + 1}: {scenario.name} on {name}", file=sys.stderr, flush=True)
            try:
                run = measured(name, scenario, scratch, options)
            except Failed as why:
                missing |= {name} if isinstance(why, Missing) else set()
                print(f"{scenario.name} on {name}: {why}", file=sys.stderr, flush=True)
            else:
                runs.setdefault((scenario, name), []).append(run)
    found = {key: middle(each) for key, each in runs.items()}
    print(COLUMNS.format("load", "server", "items/s", "p50 ms", "p99 ms", "thread us", "busy", "client"))
    for (scenario, name), each in found.items():
        busy = (f"{each['thread_us']:.1f}", f"{each['busy']:.0%}", f"{each['client']:.0%}")
        times = (f"{each['p50_ms']:.2f}", f"{each['p99_ms']:.2f}")
        print(COLUMNS.format(scenario.name, name, f"{each['rate']:,.0f}", *times, *busy))
    print()
    return [told(target, found, missing) for target in TARGETS]


def told(target, found, missing):
    """Print one target and its figure."""
    if target.peer in missing:
        print(f"{'-':<6} {target.says}: {target.peer} is not installed")
        return {"target": target.says, "missing": target.peer, "bound": target.bound, "at_least": target.at_least}
    ours, theirs = found.get((target.scenario, "fsync")), found.get((target.scenario, target.peer))
    if ours is None or (target.peer and theirs is None):
        print(f"{'failed':<6} {target.says}")
        return {"target": target.says, "failed": True, "bound": target.bound, "at_least": target.at_least}
    value = ours[target.figure] / (theirs[target.figure] if theirs else 1)
    met = value >= target.bound if target.at_least else value <= target.bound
    bound = f"{'at least' if target.at_least else 'at most'} {target.bound:g}"
    print(f"{'met' if met else 'MISSED':<6} {target.says}: {value:.2f} ({bound})", flush=True)
    about = {"target": target.says, "bound": target.bound, "at_least": target.at_least}
    return {**about, "value": value, "met": met, "ours": ours, "theirs": theirs}
