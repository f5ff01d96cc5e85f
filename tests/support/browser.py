"""A real Chromium that plays HLS through hls.js."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from typing import Any

from playwright.sync_api import Page, sync_playwright

from tests.support import node

ARGUMENTS = [
    "--no-sandbox",
    "--headless=new",
    "--autoplay-policy=no-user-gesture-required",
    "--disable-gpu",
    "--mute-audio",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
]
PAGE = "<!doctype html><meta charset=utf-8><video id=v muted playsinline width=320></video>"
START = """
url => new Promise((resolve, reject) => {
  const video = document.getElementById('v');
  const hls = new Hls({ maxBufferLength: 6, maxMaxBufferLength: 6, startLevel: 0 });
  window.hls = hls;
  window.problems = [];
  window.played = new Set();
  hls.on(Hls.Events.ERROR, (_, data) => {
    window.problems.push({ details: data.details, fatal: data.fatal, status: data.response?.code ?? null });
    if (data.fatal) reject(new Error(data.details));
  });
  hls.on(Hls.Events.FRAG_CHANGED, (_, data) => window.played.add(data.frag.level));
  hls.on(Hls.Events.MANIFEST_PARSED, () => { video.play(); resolve(hls.levels.length); });
  hls.loadSource(url);
  hls.attachMedia(video);
})
"""


class Player:
    """A page with one video element; times in seconds."""

    def __init__(self, page: Page) -> None:
        self._page = page

    def start(self, url: str) -> int:
        """Load a multivariant playlist and play; how many levels it has."""
        return int(self._page.evaluate(START, url))

    def time(self) -> float:
        """Where the film is."""
        return float(self._page.evaluate("document.getElementById('v').currentTime"))

    def seek(self, seconds: float) -> None:
        """Jump, and go on playing."""
        self._page.evaluate(
            "t => { const v = document.getElementById('v'); v.currentTime = t; return v.play(); }", seconds
        )

    def pause(self) -> None:
        """Stop playing."""
        self._page.evaluate("document.getElementById('v').pause()")

    def play(self) -> None:
        """Go on."""
        self._page.evaluate("document.getElementById('v').play()")

    def switch(self, level: int) -> None:
        """Play another rendition from here on, and drop what is buffered."""
        self._page.evaluate("level => { window.hls.currentLevel = level; }", level)

    def wait_until_past(self, seconds: float, timeout_s: float = 30) -> None:
        """Return when the film is past a time."""
        condition = "t => document.getElementById('v').currentTime > t"
        self._page.wait_for_function(condition, arg=seconds, timeout=timeout_s * 1000)

    def wait_until_height(self, height: int, timeout_s: float = 15) -> None:
        """Return when pictures of this height (pixels) are shown; a busy machine shows them a while after their time."""
        condition = "h => document.getElementById('v').videoHeight === h"
        self._page.wait_for_function(condition, arg=height, timeout=timeout_s * 1000)

    def wait(self, seconds: float) -> None:
        """Let time pass for the page."""
        self._page.wait_for_timeout(seconds * 1000)

    def levels_played(self) -> set[int]:
        """The renditions that pictures were shown of."""
        return set(self._page.evaluate("[...window.played]"))

    def problems(self) -> list[dict[str, Any]]:
        """What hls.js complained about."""
        found: list[dict[str, Any]] = self._page.evaluate("window.problems")
        return found

    def quality(self) -> dict[str, int]:
        """Frames shown and dropped, and the picture's size."""
        found: dict[str, int] = self._page.evaluate(
            "() => { const v = document.getElementById('v'); const q = v.getVideoPlaybackQuality();"
            " return { shown: q.totalVideoFrames, dropped: q.droppedVideoFrames, width: v.videoWidth, height: v.videoHeight }; }"
        )
        return found


@contextlib.contextmanager
def player() -> Iterator[Player]:
    """A fresh browser with the player's page."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    assert chromium, "chromium is missing; run: make test"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        try:
            page = browser.new_page()
            page.set_content(PAGE)
            page.add_script_tag(path=str(node.MODULES / "hls.js" / "dist" / "hls.min.js"))
            yield Player(page)
        finally:
            browser.close()
