"""When a film with beats flashes and beeps (seconds), as a decoder finds it."""

from __future__ import annotations

from pathlib import Path

import av


def beats_seen(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        found, dark = [], True
        for frame in container.decode(video=0):
            light = float(frame.to_ndarray(format="gray").mean()) > 120
            if light and dark:
                found.append(float(frame.time))
            dark = not light
    return found


def beats_heard(path: Path) -> list[float]:
    found, quiet_since = [], -1.0
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            values = frame.to_ndarray()[0]
            for at, value in enumerate(values):
                if abs(value) > 0.05:
                    time = float(frame.time) + at / frame.sample_rate
                    if time - quiet_since > 0.5:
                        found.append(time)
                    quiet_since = time
    return found
