"""Every scenario on every server, round after round for as long as there is time: no server has the quieter hour."""

import sys
import time

from peers import OURS, PEERS
from servers import Failed, Missing
from targets import measured, middle


class ProgressLine:
    """Says how far it is and how long it will take, in a line that stays where it is if a person is looking."""

    def __init__(self, total, rounds):
        self.total = total
        self.rounds = rounds
        self.began = time.monotonic()
        self.done = 0

    def next(self, what):
        """*what* begins."""
        spent = time.monotonic() - self.began
        left = spent / self.done * (self.total - self.done) if self.done else 0
        text = f"round {self.rounds}, {self.done + 1} of {self.total}, {left / 60:.0f} min left in it: {what}"
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[K{text}")
        else:
            sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
        self.done += 1

    def end(self):
        """Leave the line."""
        if sys.stderr.isatty():
            sys.stderr.write("\r\x1b[K")


def measure_matrix(scenarios, names, options, scratch):
    """A row for each scenario and server, with the median of its runs."""
    pairs = [(scenario, name) for scenario in scenarios for name in names if PEERS[name].can(scenario)]
    runs, failures, missing = {}, {}, set()
    began = time.monotonic()
    rounds = 0
    while rounds < options.repeats:
        this = time.monotonic()
        progress = ProgressLine(len(pairs), rounds + 1)
        for scenario, name in pairs:
            if name in missing:
                continue
            progress.next(f"{scenario.name} on {name}")
            try:
                runs.setdefault((scenario, name), []).append(measured(name, scenario, scratch, options))
            except Missing as why:
                missing.add(name)
                failures[scenario, name] = str(why)
            except Failed as why:
                failures[scenario, name] = str(why)
            if rounds and time.monotonic() - began > options.minutes * 60:
                break
        progress.end()
        rounds += 1
        if time.monotonic() + (time.monotonic() - this) > began + options.minutes * 60:
            break
    return [row(pair, runs.get(pair), failures.get(pair), missing) for pair in pairs], rounds


def row(pair, runs, failure, missing):
    scenario, name = pair
    about = {"scenario": scenario.name, "server": name, "ours": name in OURS}
    if runs:
        return {**about, "runs": len(runs), **middle(runs)}
    if name in missing:
        return {**about, "missing": f"{PEERS[name].program} is not installed"}
    return {**about, "failed": failure or "not measured"}


COLUMNS = "{:<18} {:<15} {:>10} {:>8} {:>8} {:>9} {:>7} {:>8} {:>7} {:>7} {:>7}"
HEADING = ("load", "server", "items/s", "p50 ms", "p99 ms", "p99.9 ms", "cpu s/M", "B/item", "MiB", "busy", "client")


def cells(row):
    """The figures of a row as text; a row without figures says why."""
    why = row.get("missing") or row.get("failed")
    if why:
        return [("missing" if "missing" in row else "failed"), *[""] * 8]
    times = [f"{row[name]:.2f}" if row[name] is not None else "-" for name in ("p50_ms", "p99_ms", "p999_ms")]
    return [
        f"{row['rate']:,.0f}",
        *times,
        f"{row['cpu_per_million']:.1f}",
        f"{row['written']:,.0f}",
        f"{row['peak'] / 2**20:.0f}",
        f"{row['busy']:.0%}",
        f"{row['client']:.0%}",
    ]


def print_rows(rows):
    """The table, for a terminal."""
    print(COLUMNS.format(*HEADING))
    for each in rows:
        print(COLUMNS.format(each["scenario"], each["server"], *cells(each)).rstrip())
