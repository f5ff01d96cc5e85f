"""The media address: a raw ASGI app under ``/p/``. Token, gate, bytes: nothing else stands between a request and a segment.

``/p/{token}/{asset_id}/`` and then what `ROUTES` says. A malformed, forged or foreign token is 404, an ended or expired
session 403. Range requests are RFC 9110 section 14 (one range; several are answered with the whole), validators section 13.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from streamgate.domain.clock import Clock
from streamgate.domain.errors import MethodNotAllowed, NotFound, SessionExpired, StreamGateError
from streamgate.plugins.streaming.gate import Gate
from streamgate.plugins.streaming.library import Body, Library
from streamgate.plugins.streaming.presence import ClientLeft, Presence
from streamgate.plugins.streaming.tokens import Claims, PlaybackTokens
from streamgate.ports.cache import Cache
from streamgate.runtime.problems import send_problem
from streamgate.runtime.telemetry import Metrics

_PATH = re.compile(r"/p/([A-Za-z0-9_-]{62})/(ast_[0-9a-z]{20})/([A-Za-z0-9._/-]{1,64})\Z")
_RANGE = re.compile(r"bytes=(\d{0,15})-(\d{0,15})\Z")

_COMMON = [
    (b"access-control-allow-origin", b"*"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"cross-origin"),
]
_EXPOSED = (b"access-control-expose-headers", b"Content-Length, Content-Range, ETag, Retry-After, X-Request-Id")
_PREFLIGHT = [
    *_COMMON,
    (b"access-control-allow-methods", b"GET, HEAD, OPTIONS"),
    (b"access-control-allow-headers", b"Range, If-None-Match, If-Range"),
    (b"access-control-max-age", b"86400"),
    (b"content-length", b"0"),
]


MOST_REMEMBERED = 20_000
PREFIX = "/p/{token}/{asset_id}/"

SEGMENT = "{rendition}/{n}.m4s"

ROUTES: dict[str, tuple[str, str]] = {
    SEGMENT: ("segment", "CMAF segment, counted from 0; made when it is missing"),
    "{rendition}/playlist.m3u8": ("playlist", "HLS media playlist, complete from the start"),
    "{rendition}/init.mp4": ("init", "CMAF init segment"),
    "master.m3u8": ("master", "HLS multivariant playlist"),
    "manifest.mpd": ("manifest", "DASH manifest, over the same segments"),
    "poster.jpg": ("poster", "Poster"),
    "storyboard.vtt": ("storyboard", "Cues that point into the sheets of the storyboard"),
    "storyboard/{n}.jpg": ("sheet", "Sheet of small pictures, counted from 0; made when it is missing"),
    "captions/{lang}/playlist.m3u8": ("caption_playlist", "HLS playlist of a caption track"),
    "captions/{lang}.vtt": ("captions", "Caption track as WebVTT"),
    "{rendition}/iframes.m3u8": ("iframes", "HLS I-frame playlist of a video rendition"),
    "{rendition}/{n}.iframe.m4s": ("key_frame", "First picture of a segment, as a segment of its own"),
}
"""Path below `PREFIX` (a number comes last) → method of `Library` that fetches it, and what it is; most asked for first."""

_PLACES = {
    "{rendition}": "([a-z0-9-]{1,32})",
    "{lang}": "([a-z0-9-]{1,40})",
    "{n}": "(?P<number>0|[1-9][0-9]{0,6})",
}


def _pattern(template: str) -> re.Pattern[str]:
    text = re.escape(template).replace(r"\{", "{").replace(r"\}", "}")
    for place, pattern in _PLACES.items():
        text = text.replace(place, pattern)
    return re.compile(text + r"\Z")


_SEGMENT = _pattern(SEGMENT)


@dataclass(frozen=True, slots=True)
class _Ready:
    """An answer that was given before: its route, its head, and its bytes or their place in the cache."""

    template: str
    head: bytes
    body: Body
    generation: int


class MediaApp:
    """Serves what a playback token opens."""

    def __init__(
        self,
        *,
        tokens: PlaybackTokens,
        gate: Gate,
        library: Library,
        cache: Cache,
        clock: Clock,
        metrics: Metrics,
        sign: Callable[[str], Awaitable[str]] | None = None,
    ) -> None:
        self._tokens = tokens
        self._gate = gate
        self._library = library
        self._cache = cache
        self._clock = clock
        self._metrics = metrics
        self._sign = sign
        self._opened: dict[bytes, Claims] = {}
        self._ready: dict[bytes, _Ready] = {}
        self._routes = [(path, _pattern(path), method) for path, (method, _) in ROUTES.items()]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        scope["path_template"] = "/p/{token}"
        try:
            if scope["method"] == "OPTIONS":
                await send({"type": "http.response.start", "status": 204, "headers": _PREFLIGHT})
                await send({"type": "http.response.body", "body": b""})
                return
            if scope["method"] not in {"GET", "HEAD"}:
                raise MethodNotAllowed("Media addresses take GET and HEAD.")
            await self._answer(scope, receive, send)
        except ClientLeft:
            return
        except StreamGateError as error:
            more = [*_COMMON, _EXPOSED]
            if isinstance(error, MethodNotAllowed):
                more.append((b"allow", b"GET, HEAD, OPTIONS"))
            await send_problem(scope, send, error, more)

    def at_once(self, path: bytes) -> tuple[bytes, bytes] | None:
        """Head (without the empty line) and body of the answer to a plain GET, when everything for it is at hand.

        The same rules as on the longer way: a genuine token, an entry of the gate that is still good, bytes of the film
        as it is now. None says nothing: the longer way finds out.
        """
        claims = self._opened.get(path[3:65])
        if claims is None or not path.startswith(claims.asset_id.encode(), 66):
            return None
        if not self._gate.admits(claims.session_id, claims.asset_id, self._clock.now_ms()):
            return None
        ready = self._ready.get(path[66:])
        data = None if ready is None else self._known(ready)
        if ready is None or data is None:
            found = self._made(path[66:], claims.asset_id)
            if found is None:
                return None
            ready, data = found
        self._metrics.at_once(ready.template, len(data))
        return ready.head, data

    def _known(self, ready: _Ready) -> bytes | None:
        """The bytes of an answer that was given before, if they are still those of the film and at hand."""
        body = ready.body
        if ready.generation != self._library.generation or body.good_until <= self._clock.monotonic():
            return None
        return body.data if body.key is None else self._cache.peek(body.key)

    def _made(self, place: bytes, asset_id: str) -> tuple[_Ready, bytes] | None:
        """A segment that can be made without waiting, ``place`` being its path from the film on."""
        match = _SEGMENT.match(place[len(asset_id) + 1 :].decode("latin-1"))
        if match is None:
            return None
        generation = self._library.generation
        body = self._library.segment_at_hand(asset_id, match[1], int(match["number"]))
        return None if body is None else (self._keep(place, PREFIX + SEGMENT, body, generation), body.data)

    def _remember(self, path: str, template: str, claims: Claims, body: Body, generation: int) -> None:
        """Let the next request for the same go the short way, and with that token any whose answer is at hand."""
        if body.good_until <= self._clock.monotonic() or (self._sign is not None and body.key is not None):
            return
        if len(self._opened) >= MOST_REMEMBERED:
            self._opened.clear()
        self._opened[path[3:65].encode()] = claims
        self._keep(path[66:].encode(), template, body, generation)

    def _keep(self, place: bytes, template: str, body: Body, generation: int) -> _Ready:
        if len(self._ready) >= MOST_REMEMBERED:
            self._ready.clear()
        lines = [
            name + b": " + value for name, value in (*_headers(body), (b"content-length", str(len(body.data)).encode()))
        ]
        head = b"\r\n".join([b"HTTP/1.1 200 OK", *lines, b""])
        kept = body if body.key is None else replace(body, data=b"")
        ready = self._ready[place] = _Ready(template, head, kept, generation)
        return ready

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        match = _PATH.match(scope["path"])
        claims = self._tokens.open(match[1]) if match else None
        if match is None or claims is None or claims.asset_id != match[2]:
            raise NotFound("There is nothing at this address.")
        if claims.expires_s * 1000 <= self._clock.now_ms():
            raise SessionExpired("This playback address has reached its end. Start playback again.")
        await self._gate.admit(claims.session_id, claims.asset_id)
        template, what, given = self._what(match[3])
        scope["path_template"] = template
        if self._sign is not None and scope["method"] == "GET":
            with Presence(receive):
                key = await self._library.place(what, claims.asset_id, *given)
            if key is not None:
                await self._gate.admit(claims.session_id, claims.asset_id)
                await _redirect(send, await self._sign(key))
                return
        generation = self._library.generation
        with Presence(receive):
            body: Body = await getattr(self._library, what)(claims.asset_id, *given)
        self._remember(scope["path"], template, claims, body, generation)
        # Fetching may have taken seconds: the right to watch is asked for again just before the first byte.
        await self._gate.admit(claims.session_id, claims.asset_id)
        await respond(scope, send, body)

    def _what(self, rest: str) -> tuple[str, str, list[str | int]]:
        """The route's template, the method of the library that fetches it, and what it takes beside the film."""
        for template, pattern, method in self._routes:
            match = pattern.match(rest)
            if match is not None:
                last = pattern.groups if "number" in pattern.groupindex else 0
                given = [int(text) if place == last else text for place, text in enumerate(match.groups(), 1)]
                return PREFIX + template, method, given
        raise NotFound("There is nothing at this address.")


async def _redirect(send: Any, url: str) -> None:
    """The bytes lie there, for a few seconds; nothing on the way may remember it."""
    headers = [
        *_COMMON,
        _EXPOSED,
        (b"location", url.encode()),
        (b"cache-control", b"no-store"),
        (b"content-length", b"0"),
    ]
    await send({"type": "http.response.start", "status": 302, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def respond(scope: Any, send: Any, body: Body) -> None:
    """Answer with a body, a part of it, or the news that the client's copy is still good."""
    asked = {name: value.decode("latin-1") for name, value in scope["headers"] if name in _ASKED}
    headers = _headers(body)
    status, data = 200, body.data
    if _matches(asked.get(b"if-none-match"), body.etag):
        status, data = 304, b""
        headers = [header for header in headers if header[0] != b"content-type"]
    elif (wanted := _range(asked, body)) is not None:
        first, last = wanted
        if first > last:
            status, data = 416, b""
            headers.append((b"content-range", f"bytes */{len(body.data)}".encode()))
        else:
            status, data = 206, body.data[first : last + 1]
            headers.append((b"content-range", f"bytes {first}-{last}/{len(body.data)}".encode()))
    if status != 304:
        headers.append((b"content-length", str(len(data)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else data})


def _headers(body: Body) -> list[tuple[bytes, bytes]]:
    caching = b"private, max-age=3600" if body.immutable else b"private, no-cache"
    return [
        *_COMMON,
        _EXPOSED,
        (b"content-type", body.media_type.encode()),
        (b"etag", body.etag.encode()),
        (b"cache-control", caching),
        (b"accept-ranges", b"bytes"),
    ]


_ASKED = frozenset({b"if-none-match", b"if-range", b"range"})


def _matches(header: str | None, etag: str) -> bool:
    if header is None:
        return False
    return header.strip() == "*" or etag in (part.strip().removeprefix("W/") for part in header.split(","))


def _range(asked: dict[bytes, str], body: Body) -> tuple[int, int] | None:
    """First and last byte; first > last when the range lies outside; None to answer with everything."""
    header = asked.get(b"range")
    match = _RANGE.match(header) if header else None
    if match is None or asked.get(b"if-range", body.etag) != body.etag or match.groups() == ("", ""):
        return None
    size = len(body.data)
    if match[1] == "":
        suffix = int(match[2])
        return (max(0, size - suffix), size - 1) if suffix else (1, 0)
    first = int(match[1])
    last = min(int(match[2]), size - 1) if match[2] else size - 1
    if match[2] and int(match[2]) < first:
        return None
    return (first, last) if first < size else (1, 0)
