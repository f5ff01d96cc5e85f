"""A film in two languages with captions, put together by the ffmpeg command line."""

from __future__ import annotations

import subprocess
from pathlib import Path

CAPTIONS = [
    (1.0, 3.5, "Hello <b>there</b> & welcome"),
    (5.0, 7.25, "Second line\nof two"),
    (20.0, 22.0, "Near the end"),
]
GERMAN_CAPTIONS = [(1.0, 3.5, "Guten Tag"), (5.0, 7.25, "Zwei")]


def srt(cues: list[tuple[float, float, str]]) -> str:
    """A SubRip file."""
    parts = [f"{n}\n{_time(start)} --> {_time(end)}\n{text}\n" for n, (start, end, text) in enumerate(cues, 1)]
    return "\n".join(parts)


def _time(seconds: float) -> str:
    whole, milliseconds = divmod(round(seconds * 1000), 1000)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d},{milliseconds:03d}"


def captioned_film(folder: Path, tracks: list[list[tuple[float, float, str]]]) -> Path:
    """A second of small pictures in Matroska, with subtitle tracks of no stated language."""
    path = folder / f"captioned-{len(tracks)}-{len(tracks[0])}.mkv"
    inputs: list[str] = []
    for number, cues in enumerate(tracks):
        text = folder / f"track-{number}.srt"
        text.write_text(srt(cues), encoding="utf-8")
        inputs += ["-i", str(text)]
    command = [
        *("ffmpeg", "-v", "error", "-y", "-f", "lavfi", "-i", "testsrc2=size=160x120:rate=10:duration=1", *inputs),
        *("-map", "0:v", *(part for number in range(len(tracks)) for part in ("-map", f"{number + 1}:s"))),
        *("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:s", "srt", str(path)),
    ]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path


def spoken_film(folder: Path, *, container: str = "mkv", seconds: int = 26, subtitle_codec: str = "srt") -> Path:
    """640 x 360 at 25 frames per second; a low tone in English, a high one in German; captions in both."""
    path = folder / f"spoken-{seconds}-{subtitle_codec}.{container}"
    if path.exists():
        return path
    web = container == "webm"
    for name, cues in (("en", CAPTIONS), ("de", GERMAN_CAPTIONS)):
        (folder / f"{name}.srt").write_text(srt(cues), encoding="utf-8")
    command = [
        *("ffmpeg", "-v", "error", "-y"),
        *("-f", "lavfi", "-i", f"testsrc2=size=640x360:rate=25:duration={seconds}"),
        *("-f", "lavfi", "-i", f"sine=frequency=300:sample_rate=48000:duration={seconds}"),
        *("-f", "lavfi", "-i", f"sine=frequency=1200:sample_rate=44100:duration={seconds}"),
        *("-i", str(folder / "en.srt"), "-i", str(folder / "de.srt")),
        *("-map", "0:v", "-map", "1:a", "-map", "2:a", "-map", "3:s", "-map", "4:s"),
        *(
            ("-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8")
            if web
            else ("-c:v", "libx264", "-preset", "ultrafast")
        ),
        *("-g", "50", "-pix_fmt", "yuv420p", "-c:a", "libopus" if web else "aac", "-ac", "2", "-c:s", subtitle_codec),
        *("-metadata:s:a:0", "language=eng", "-metadata:s:a:1", "language=ger"),
        *("-metadata:s:s:0", "language=eng", "-metadata:s:s:1", "language=ger", "-metadata:s:s:1", "title=Deutsch"),
        *("-disposition:a:0", "default", "-disposition:a:1", "0"),
        *("-disposition:s:0", "0", "-disposition:s:1", "0"),
        str(path),
    ]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path
