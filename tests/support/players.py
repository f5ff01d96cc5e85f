"""hls.js, dash.js and Shaka Player in a real Chromium, behind one face."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright
from playwright.sync_api import TimeoutError as NotInTime

from tests.support import node
from tests.support.browser import ARGUMENTS, PAGE

SCRIPTS: dict[str, Path] = {
    "hls.js": node.MODULES / "hls.js" / "dist" / "hls.min.js",
    "dash.js": node.MODULES / "dashjs" / "dist" / "modern" / "umd" / "dash.all.min.js",
    "Shaka": node.MODULES / "shaka-player" / "dist" / "shaka-player.compiled.js",
}
FACE = Path(__file__).with_name("players.js")
CUES = """
() => [...document.getElementById('v').textTracks].filter(track => track.mode !== 'disabled')
  .flatMap(track => [...(track.activeCues ?? [])]).map(cue => cue.text)
"""
LOAD_IMAGE = """
url => new Promise((done, failed) => {
  const image = new Image();
  image.onload = () => done([image.width, image.height]);
  image.onerror = failed;
  image.src = url;
})
"""


class Player:
    """A page that plays; times in seconds."""

    def __init__(self, page: Page, name: str) -> None:
        self._page, self._name = page, name
        self.requested: list[str] = []
        page.on("request", lambda request: self.requested.append(request.url))

    def start(self, url: str) -> None:
        """Load a manifest and play."""
        self._page.evaluate("([name, url]) => begin(name, url)", [self._name, url])

    def do(self, what: str, *given: Any) -> Any:
        """Call one of the face's functions."""
        return self._page.evaluate("([what, given]) => sg[what](...given)", [what, list(given)])

    def seek(self, seconds: float) -> None:
        """Jump."""
        self._page.evaluate("t => { document.getElementById('v').currentTime = t; }", seconds)

    def wait_until_past(self, seconds: float, timeout_s: float = 30) -> None:
        """Return when the film is past a time."""
        condition = "t => document.getElementById('v').currentTime > t"
        self._page.wait_for_function(condition, arg=seconds, timeout=timeout_s * 1000)

    def wait_until_ended(self, timeout_s: float = 30) -> None:
        """Return when the film has been played to its end."""
        self._page.wait_for_function("() => document.getElementById('v').ended", timeout=timeout_s * 1000)

    def wait_until_height(self, height: int, timeout_s: float = 20) -> None:
        """Return when pictures of this height are shown."""
        condition = "h => document.getElementById('v').videoHeight === h"
        self._page.wait_for_function(condition, arg=height, timeout=timeout_s * 1000)

    def switch(self, height: int) -> None:
        """Ask for another rendition, and return when its pictures are shown.

        What is buffered is played first, three times as fast; a film that ends meanwhile is gone back in. A seek ends before: of a
        switch in the middle of one, Chromium sometimes waits for ever with everything buffered.
        """
        self._page.wait_for_function("() => !document.getElementById('v').seeking", timeout=20_000)
        self.do("height", height)
        self._rate(3)
        for _ in range(4):
            try:
                self.wait_until_height(height, 15)
            except NotInTime:
                self.seek(1.0)
            else:
                self._rate(1)
                return
        raise AssertionError(f"pictures of {height} pixels were never shown")

    def _rate(self, rate: float) -> None:
        self._page.evaluate("rate => { document.getElementById('v').playbackRate = rate; }", rate)

    def wait_for_caption(self, text: str, before: float) -> None:
        """Return when a cue with this text is on screen; gone back to ``before`` it (seconds) until the captions are loaded."""
        condition = f"text => ({CUES})().some(shown => shown.includes(text))"
        for _ in range(5):
            self.seek(before)
            try:
                self._page.wait_for_function(condition, arg=text, timeout=8000)
            except NotInTime:
                continue
            return
        raise AssertionError(f"the caption {text!r} was never shown")

    def image_size(self, url: str) -> tuple[int, int]:
        """Width and height of an image as the browser decodes it."""
        width, height = self._page.evaluate(LOAD_IMAGE, url)
        return int(width), int(height)

    def shown(self) -> int:
        """Frames shown so far."""
        return int(self._page.evaluate("document.getElementById('v').getVideoPlaybackQuality().totalVideoFrames"))

    def problems(self) -> list[str]:
        """What the player complained about, and the browser's decoder."""
        found: list[str] = self._page.evaluate("seen.problems")
        error = self._page.evaluate("document.getElementById('v').error?.message ?? null")
        return [*found, *([error] if error else [])]

    def longest_stall(self) -> float:
        """Seconds that the picture stood still at most while it should have moved."""
        return float(self._page.evaluate("seen.stalled"))


@contextlib.contextmanager
def player(name: str) -> Iterator[Player]:
    """A fresh browser with one of the players."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    assert chromium, "chromium is missing; run: make test"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        try:
            page = browser.new_page()
            page.set_content(PAGE)
            page.add_script_tag(path=str(SCRIPTS[name]))
            page.add_script_tag(path=str(FACE))
            yield Player(page, name)
        finally:
            browser.close()
