"""``python -m benchmarks [NAME …] [--media FILE]``: measure, and print a table for docs/reference/performance.md."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks import (
    delivery,
    first,
    gate,
    growing,
    instant,
    ladder,
    modes,
    scans,
    seeks,
    soak,
    startup,
    tus,
    upload,
    uploaded,
    viewers,
)
from benchmarks.report import machine, table

ALL = {
    "startup": startup.measure,
    "upload": upload.measure,
    "first": first.measure,
    "ladder": ladder.measure,
    "delivery": delivery.measure,
    "tus": tus.measure,
    "gate": gate.measure,
    "viewers": viewers.measure,
    "instant": instant.measure,
    "uploaded": uploaded.measure,
    "seeks": seeks.measure,
    "scans": scans.measure,
    "growing": growing.measure,
    "modes": modes.measure,
}
LONG = {"soak": soak.measure}
"""Only when asked for."""


def main() -> None:
    """Measure what is asked for, or everything."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help="what to measure; default: everything")
    parser.add_argument("--media", type=Path, help="a 1080p film of 60 s; default: one is synthesised")
    arguments = parser.parse_args()
    print(machine(), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.names or ALL:
            figures = (ALL | LONG)[name](Path(folder), arguments.media.resolve() if arguments.media else None)
            print(f"\n{table(figures)}", flush=True)


if __name__ == "__main__":
    main()
