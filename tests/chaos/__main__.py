"""``python -m tests.chaos``: rounds of faults, a table of how they went, exit status 1 when anything did not hold."""

from __future__ import annotations

import argparse
import itertools
import os
import signal
import sys
import threading
import time
from pathlib import Path

import psutil

from tests.chaos.faults import COMBINATIONS, Fault, Kind, by_kind, not_done, schedule
from tests.chaos.rounds import Result, explained, quiet, run, sources, table
from tests.chaos.world import scratch, world


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--faults", type=int, default=8, help="faults in a round")
    parser.add_argument(
        "--outage", type=outage, action="append", metavar="'KIND TARGET SECONDS'", help="a round with this and no other"
    )
    parser.add_argument("--every", type=float, default=5.0, help="seconds from one fault to the next")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where logs and data are kept; default: nowhere")
    parser.add_argument("--all", action="store_true", help="fail unless every kind was done to every target")
    parser.add_argument("--beside", type=int, help="end when this process does")
    return parser.parse_args()


def outage(text: str) -> Fault:
    """``half-open s3 40``"""
    kind, target, seconds = text.split()
    if (kind, target) not in COMBINATIONS:
        raise ValueError(text)
    return Fault(Kind(kind), target, float(seconds))


def end_with(process: int | None) -> None:
    """Take down all that was started when told to stop, and when nobody waits for us any more."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    def watch() -> None:
        while process is not None and psutil.pid_exists(process):
            time.sleep(1)
        if process is not None:
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def say(line: str) -> None:
    print(line, flush=True)


def main() -> int:
    told = arguments()
    end_with(told.beside)
    results: list[Result] = []
    began = time.monotonic()
    faults = schedule(told.seed)
    if told.outage:
        faults, told.rounds, told.faults = iter(told.outage), len(told.outage), 1
    with scratch(told.folder) as folder, world(folder / "world") as broken:
        calm = quiet(broken, sources(folder / "films"))
        say(f"started in {time.monotonic() - began:.0f} s, seed {told.seed}, a fault every {told.every:g} s")
        say(table([]))
        for number in range(1, told.rounds + 1):
            brought = list(itertools.islice(faults, told.faults))
            result = run(broken, calm, number, brought, told.every, told.seed)
            results.append(result)
            say(f"| {' | '.join(result.row)} |")
            if result.troubles:
                say(explained(result))
    say(summary(results, time.monotonic() - began))
    bad = [result for result in results if result.troubles]
    missing = not_done(fault for result in results for fault in result.faults) if told.all else []
    if missing:
        say(f"never done: {', '.join(missing)}")
    return 1 if bad or missing else 0


def summary(results: list[Result], seconds: float) -> str:
    """All rounds together, and how long the one who always watches had to wait at worst, by fault."""
    done = [fault for result in results for fault in result.faults]
    longest: dict[str, float] = {}
    for result in results:
        for name, gap in result.gaps.items():
            longest[name] = max(longest.get(name, 0.0), gap)
    waits = "\n".join(f"| {name} | {gap:.1f} s |" for name, gap in sorted(longest.items(), key=lambda item: -item[1]))
    return f"{len(done)} faults in {seconds:.0f} s: {by_kind(done)}\n\n| fault | longest gap |\n| --- | --- |\n{waits}"


if __name__ == "__main__":
    sys.exit(main())
