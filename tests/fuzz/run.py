"""
The fuzzing command: damaged conversations through all targets, then hostile sessions with a real server.

Everything follows from the seed, except what a live server's timing decides.  A
failing input is minimised, written to a folder and named with its seed; the
status is then 1.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import live
from campaign import Campaign
from targets import TARGETS


def arguments():
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--frames", type=int, default=200_000, help="messages to spoil [200000]")
    parser.add_argument("--sessions", type=int, default=5_000, help="hostile live sessions [5000]")
    parser.add_argument("--seed", type=int, default=None, help="the first seed [the time]")
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"), help="where to write what fails")
    parser.add_argument("--replay", type=Path, nargs="*", help="run these files through all targets, and nothing else")
    return parser.parse_args()


def shown(line, *, last=False):
    """Show progress on a terminal."""
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K" + line + ("\n" if last else ""))
        sys.stderr.flush()


class ProgressLine:
    """Shows progress a few times a second."""

    def __init__(self, total):
        self.total, self.began, self.said = total, time.monotonic(), 0.0

    def __call__(self, done, what):
        now = time.monotonic()
        if now - self.said > 0.25:
            self.said = now
            shown(f"{done:,} of {self.total:,} {what}, {done / max(now - self.began, 1e-9):,.0f} a second")


def replay(files):
    """Run each file through each target, unchanged; raise at a finding."""
    for file in files:
        for name, check in TARGETS.items():
            check(file.read_bytes())
            print(f"{file.name}: {name} copes")


def frames_table(campaign, seconds):
    """Print the counts of the campaign in this process."""
    print(f"{campaign.frames:,} spoilt messages, {campaign.conversations:,} conversations, {seconds:.0f} s")
    print(f"  {'target':<14}{'inputs':>10}{'s':>8}{'us each':>10}")
    for name, inputs in campaign.inputs.items():
        spent = campaign.seconds[name]
        print(f"  {name:<14}{inputs:>10,}{spent:>8.1f}{spent / max(inputs, 1) * 1e6:>10.0f}")
    print("  compared with pycapnp:")
    for name, count in campaign.pycapnp.counts.most_common():
        print(f"    {count:>9,}  {name}")


def live_table(report):
    """Print the counts of the sessions with a live server."""
    print(f"{report.sessions:,} hostile sessions, {report.seconds:.0f} s; {report.kept:,} kept items accounted for")
    print("  " + ", ".join(f"{name} {count:,}" for name, count in report.kinds.most_common()))
    print(f"  {'good client':<14}{'calls':>10}{'p50 ms':>10}{'p99 ms':>10}{'max ms':>10}")
    for name, figures in (("quiet", report.quiet), ("attacked", report.hostile)):
        marks = "".join(f"{figures.get(mark, float('nan')):>10.2f}" for mark in ("p50", "p99", "max"))
        print(f"  {name:<14}{figures.get('calls', 0):>10,}{marks}")
    if report.rss_mib:
        small, most, large = report.rss_mib
        before, after = report.descriptors
        print(f"  memory {small:.0f} MiB at the start, {most:.0f} at most, {large:.0f} at the end")
        print(f"  descriptors {before} at the start, {after} at the end")


def keep(folder, number, finding, stream_seed):
    """Write a failing input to a file; return a line that names it."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{finding.target}-{stream_seed}-{number}"
    file.write_bytes(finding.data)
    return f"{finding.target}, seed {finding.seed}: {finding.what}\n  {len(finding.data)} bytes in {file}"


def main():
    """Run the command line; return the exit status."""
    asked = arguments()
    if asked.replay is not None:
        replay(asked.replay)
        return 0
    seed, findings = int(time.monotonic() * 1e3) if asked.seed is None else asked.seed, []
    print(f"seed {seed}", flush=True)
    if asked.frames:
        began, progress = time.monotonic(), ProgressLine(asked.frames)
        campaign = Campaign(seed).run(asked.frames, lambda done: progress(done.frames, "spoilt messages"))
        shown("", last=False)
        frames_table(campaign, time.monotonic() - began)
        findings += [keep(asked.findings, *each, seed) for each in enumerate(campaign.findings)]
    if asked.sessions:
        progress = ProgressLine(asked.sessions)
        with tempfile.TemporaryDirectory(prefix="queueber-fuzz-") as folder:
            report = live.run(
                Path(folder), asked.sessions, seed, lambda done: progress(done.sessions, "hostile sessions")
            )
        shown("", last=False)
        live_table(report)
        findings += report.findings
    print(f"{len(findings)} findings")
    for finding in findings:
        print(finding)
    tried = asked.frames + asked.sessions
    bound = "unknown" if findings or not tried else f"at most {3 / tried:.3g} (3/n)"
    # As `tests/proof/run.py` adds it up.
    print(f"fuzz: {tried:,} messages and sessions, {len(findings):,} failures, bound on the rate {bound}; voids 0")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
