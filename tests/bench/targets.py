"""The ratios that are aimed at, all in one run, with contents of mixed length."""

import sys
from statistics import median

from attrs import frozen
from scenarios import MIXED_BYTES, Scenario, parsed
from servers import Failed, Missing, load, running

OURS = "fsync"


@frozen
class Target:
    """A figure of ours as a ratio to that of *peer*, at the same load or at *other*."""

    says: str
    scenario: Scenario
    peer: str
    bound: float
    figure: str = "rate"
    at_least: bool = True
    other: Scenario | None = None

    @property
    def against(self):
        """The load and the server that ours is compared with."""
        return self.other or self.scenario, self.peer


EACH = parsed("add-64x1x1-mixed")
ADD = parsed("add-4x64x1-mixed")
EACH_OWN, ADD_OWN = parsed("add-64x1x1-mixed-own"), parsed("add-4x64x1-mixed-own")
EQUAL = parsed("add-4x64x1")
EQUAL_LONG = parsed(f"add-4x64x1-{MIXED_BYTES}B")
ADD_MANY = parsed("add-4x16x100-mixed")
TAKE = parsed("take-64x1x1-mixed")
CYCLE = parsed("cycle-128x1x1-mixed")
DRAIN = parsed("take-16x16x10-mixed")
DRAIN_EACH = parsed("take-16x1x10-mixed")
ONE = parsed("add-1x1x1-mixed")

TARGETS = (
    Target("add 64 x 1: times baseline", EACH, "baseline", 2.5),
    Target("add 64 x 1: times pycapnp, in memory", EACH, "pycapnp", 1.5),
    Target("add 64 x 1: times a bare Twisted echo", EACH, "twisted-echo", 0.5),
    Target("add 4 x 64: times baseline", ADD, "baseline", 2.5),
    Target("add 64 x 1, laid out as by Queueber's own client: times baseline", EACH_OWN, "baseline", 2.5),
    Target("add 4 x 64, laid out as by Queueber's own client: times baseline", ADD_OWN, "baseline", 2.5),
    Target("add 4 x 64: equal lengths of 64 bytes times mixed ones", EQUAL, OURS, 1.3, at_least=False, other=ADD),
    Target(
        "add 4 x 64: equal lengths of the same mean times mixed ones", EQUAL_LONG, OURS, 1.3, at_least=False, other=ADD
    ),
    Target("add 4 x 64, equal lengths: times baseline", EQUAL, "baseline", 1),
    Target("add 4 x 16, 100 items a call: times baseline", ADD_MANY, "baseline", 2.5),
    Target("poll + remove 64 x 1: times baseline", TAKE, "baseline", 2.5),
    Target("cycle, 64 workers that take one and remove it: times baseline", CYCLE, "baseline", 2.5),
    Target("poll 10 + remove each, 16 x 16: times beanstalkd-f0", DRAIN, "beanstalkd-f0", 6),
    Target("poll 10 + remove each, 16 x 1: times beanstalkd-f0", DRAIN_EACH, "beanstalkd-f0", 5),
    Target("one add at a time, p50: times baseline", ONE, "baseline", 0.65, figure="p50_ms", at_least=False),
)


def figures(run):
    """The figures of one run of a load, a call or an item each."""
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
        "client_us": run["client_cpu"] / calls * 1e6,
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
    return list(dict.fromkeys(pair for each in TARGETS for pair in ((each.scenario, OURS), each.against)))


COLUMNS = "{:<20} {:<14} {:>10} {:>9} {:>9} {:>10} {:>7} {:>7} {:>10}"


def measure_targets(options, scratch):
    """Print what was measured, then each target with its figure; return all as values."""
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
    print(COLUMNS.format("load", "server", "items/s", "p50 ms", "p99 ms", "thread us", "busy", "client", "client us"))
    for (scenario, name), each in found.items():
        busy = (f"{each['thread_us']:.1f}", f"{each['busy']:.0%}", f"{each['client']:.0%}", f"{each['client_us']:.1f}")
        times = (f"{each['p50_ms']:.2f}", f"{each['p99_ms']:.2f}")
        print(COLUMNS.format(scenario.name, name, f"{each['rate']:,.0f}", *times, *busy))
    print()
    return [compared(target, found, missing) for target in TARGETS]


def compared(target, found, missing):
    """Print one target and its figure; return both as values."""
    about = {"target": target.says, "bound": target.bound, "at_least": target.at_least}
    if target.peer in missing:
        print(f"{'-':<6} {target.says}: {target.peer} is not installed")
        return {**about, "missing": target.peer}
    ours, theirs = found.get((target.scenario, OURS)), found.get(target.against)
    if ours is None or theirs is None:
        print(f"{'failed':<6} {target.says}")
        return {**about, "failed": True}
    value = ours[target.figure] / theirs[target.figure]
    met = value >= target.bound if target.at_least else value <= target.bound
    bound = f"{'at least' if target.at_least else 'at most'} {target.bound:g}"
    print(f"{'met' if met else 'MISSED':<6} {target.says}: {value:.2f} ({bound})", flush=True)
    return {**about, "value": value, "met": met, "ours": ours, "theirs": theirs}
