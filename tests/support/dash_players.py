"""dash.js and Shaka Player in a real Chromium."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from tests.support import node
from tests.support.browser import ARGUMENTS, PAGE

SCRIPTS: dict[str, Path] = {
    "dash.js": node.MODULES / "dashjs" / "dist" / "modern" / "umd" / "dash.all.min.js",
    "Shaka": node.MODULES / "shaka-player" / "dist" / "shaka-player.compiled.js",
}
START = {
    "dash.js": """
url => new Promise((resolve, reject) => {
  const video = document.getElementById('v');
  const player = dashjs.MediaPlayer().create();
  window.problems = [];
  player.on('error', event => { window.problems.push(String(event.error?.message ?? event.error)); reject(new Error('dash.js')); });
  player.on('canPlay', () => { video.play(); resolve(true); });
  player.initialize(video, url, true);
})
""",
    "Shaka": """
async url => {
  const video = document.getElementById('v');
  shaka.polyfill.installAll();
  const player = new shaka.Player();
  await player.attach(video);
  window.problems = [];
  player.addEventListener('error', event => window.problems.push(`${event.detail.category}/${event.detail.code}`));
  await player.load(url);
  video.play();
  return true;
}
""",
}


class DashPlayer:
    """A page that plays; times in seconds."""

    def __init__(self, page: Page, name: str) -> None:
        self._page, self._name = page, name

    def start(self, url: str) -> None:
        """Load a manifest and play."""
        self._page.evaluate(START[self._name], url)

    def seek(self, seconds: float) -> None:
        """Jump."""
        self._page.evaluate("t => { document.getElementById('v').currentTime = t; }", seconds)

    def wait_until_past(self, seconds: float, timeout_s: float = 30) -> None:
        """Return when the film is past a time."""
        condition = "t => document.getElementById('v').currentTime > t"
        self._page.wait_for_function(condition, arg=seconds, timeout=timeout_s * 1000)

    def shown(self) -> int:
        """Frames shown so far."""
        return int(self._page.evaluate("document.getElementById('v').getVideoPlaybackQuality().totalVideoFrames"))

    def problems(self) -> list[str]:
        """What the player complained about."""
        found: list[str] = self._page.evaluate("window.problems")
        return found


@contextlib.contextmanager
def dash_player(name: str) -> Iterator[DashPlayer]:
    """A fresh browser with one of the players."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    assert chromium, "chromium is missing; run: make test"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        try:
            page = browser.new_page()
            page.set_content(PAGE)
            page.add_script_tag(path=str(SCRIPTS[name]))
            yield DashPlayer(page, name)
        finally:
            browser.close()
