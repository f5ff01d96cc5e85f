"""An upload that stands still wherever a test wants it to."""

from __future__ import annotations

import base64
import re

import httpx

from tests.support.product import TUS, asset, play, wait_playable
from tests.support.server import Server, wait_for

BYTES = {"content-type": "application/offset+octet-stream"}


class Sending:
    """A film of which so much is sent as a test says."""

    def __init__(self, server: Server, data: bytes, token: str | None = None, **metadata: str) -> None:
        self.server, self.data, self.at = server, data, 0
        self._token = token or server.admin_key
        told = ",".join(f"{k} {base64.b64encode(v.encode()).decode()}" for k, v in metadata.items())
        headers = TUS | {"upload-length": str(len(data)), "upload-metadata": told}
        with self.http() as http:
            made = http.post("/api/v1/uploads", headers=headers)
        assert made.status_code == 201, made.text
        self.path = "/api/v1/uploads/" + made.headers["location"].rsplit("/", 1)[1]
        self.asset_id = made.headers["streamgate-asset"]

    def http(self) -> httpx.Client:
        return self.server.client(self._token)

    def until(self, end: int) -> None:
        """Send up to this byte."""
        if end > self.at:
            headers = TUS | BYTES | {"upload-offset": str(self.at)}
            with self.http() as http:
                answer = http.patch(self.path, headers=headers, content=self.data[self.at : end])
            assert answer.status_code == 204, answer.text
            self.at = end

    def part(self, share: float) -> None:
        """Send up to a share of the film."""
        self.until(int(len(self.data) * share))

    def rest(self) -> None:
        """Send what is left."""
        self.until(len(self.data))

    def base(self) -> str:
        """Where its media is, once it plays."""
        wait_playable(self.server, self.asset_id, 20)
        started = play(self.server, self.asset_id, self._token)
        assert started.status_code == 201, started.text
        return str(started.json()["hls_url"]).removesuffix("master.m3u8")

    def state(self) -> str:
        return str(asset(self.server, self.asset_id)["state"])


def listed(base: str, rendition: str = "source") -> list[str]:
    """The durations of the segments that a playlist lists, as it says them."""
    answer = httpx.get(f"{base}{rendition}/playlist.m3u8")
    assert answer.status_code == 200, answer.text
    return re.findall(r"#EXTINF:([0-9.]+),", answer.text)


def wait_listed(base: str, count: int) -> list[str]:
    """The same once there are so many."""

    def look() -> list[str] | None:
        found = listed(base)
        return found if len(found) >= count else None

    found: list[str] = wait_for(look, 15, 0.1)
    return found
