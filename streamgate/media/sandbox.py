"""The door to everything that opens a media file: killable, confined child processes.

`Sandbox.open` starts a small fork server (`av` preloaded, empty environment, no secrets in memory) before the process
loads its secrets; every task is a fresh child of it that confines itself and dies with the server.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import structlog
from msgspec.structs import replace

from streamgate.domain.asset import FailureCode, MediaRefused
from streamgate.domain.errors import Unavailable
from streamgate.media.children import Child, Nursery
from streamgate.media.made import as_copied, as_ordered, as_written, is_index
from streamgate.media.model import EncodedChunk, Grown, LadderSettings, Limits, MediaPlan
from streamgate.media.precedence import Allowance, Precedence
from streamgate.media.reads import ByteSource, may_be_read, read_ranges
from streamgate.media.wire import (
    Answer,
    Attempted,
    Broken,
    Confinement,
    Encoded,
    EncodeTask,
    Given,
    GivenAll,
    GrowTask,
    Indexed,
    Looked,
    Order,
    Picture,
    Planned,
    PlanTask,
    PosterTask,
    ProbeTask,
    Refused,
    SheetTask,
    SourceLocation,
    Task,
    Want,
    WantAll,
)
from streamgate.packaging.segments import SegmentLayout

PROTECTIONS = ("landlock", "network_namespace", "no_new_privs", "capabilities", "rlimits")

_MIB = 1 << 20
_PLAN_MEMORY = 832 * _MIB
"""Address space: of a film of twelve hours the index and what libav knows of it are made at the same time."""
_POSTER_MEMORY = 1024 * _MIB
_ENCODE_MEMORY = 2048 * _MIB
_ENCODE_BYTES_PER_PIXEL = 160
"""Address space of decoder, queue and encoders for each pixel of the renditions made at once."""

_ATTEMPT_MEMORY = 512 * _MIB
_ATTEMPT_S = 10.0
_EAGER_NICE = 19
_STATUS_S = 5.0
_REMUX_S = 15.0
_REMUX_RATE = 8 << 20
"""Bytes a second of a source that writing it out goes through at least; what is slower is encoded."""

_TIMED_OUT = "Working on the film took longer than it may. Try again, or re-encode the file."
_DIED = "The file is damaged: the decoder failed on it. Export or upload it again."
_NO_MEMORY = "The film needs more memory to decode than one film may use. Re-encode it at a smaller size."
_DEFECT = "The film could not be processed because of a fault in the server. Its log says more."


class Sandbox:
    """Runs media tasks. Cancelling the awaiting task kills the child (by its process handle) before it returns.

    Every method raises `Unavailable` when no child can be had or the source cannot be read: the film is not to blame.
    """

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch.resolve()
        self._nursery = Nursery()
        self._precedence = Precedence()
        self._held: frozenset[str] = frozenset()

    @classmethod
    @asynccontextmanager
    async def open(cls, scratch: Path) -> AsyncIterator[Sandbox]:
        """Start the fork server; children may write only below ``scratch``. Leaving the block ends every child."""
        sandbox = cls(scratch)
        try:
            sandbox._held = frozenset((await sandbox.attempt(ProbeTask())).confined)
            yield sandbox
        finally:
            await sandbox._nursery.close()

    async def plan(
        self,
        source: ByteSource,
        *,
        ladder: LadderSettings,
        limits: Limits,
        timeout_s: float = 60.0,
        folder: Path | None = None,
        before: Grown | None = None,
        early: Callable[[bytes], None] | None = None,
    ) -> MediaPlan:
        """Probe a source and plan its renditions.

        ``early`` is called, once at most, with a sample index that is probably the plan's, as soon as it is there; if it is the
        plan's, it is the same object.

        What can be served without encoding but is no byte ranges of its file is written out into ``folder``, below the scratch
        folder (None: it is encoded), which may take longer than ``timeout_s``, by its size (`MediaPlan.remuxed`).
        ``before``: what the last look came to, where it was written out or scanned while it arrived: then only the rest is, if that
        can be.

        Raises `MediaRefused` with a code of the closed list: for a file that cannot be played, for a child that
        ran out of memory or time (``timeout``) or died (``malformed_media``).
        """
        place = self._below_scratch(folder) if folder is not None else None
        remux_s = _REMUX_S + source.size / _REMUX_RATE if place is not None else 0.0
        whole_s = timeout_s + remux_s
        confinement = _confinement(_PLAN_MEMORY, whole_s, folder=str(place) if place is not None else None)
        told: list[bytes] = []

        def heard(index: bytes) -> None:
            if not is_index(index):
                raise ValueError("no sample index")
            told.append(index)
            if early is not None:
                early(index)

        task = PlanTask(ladder, limits, remux_s, before)
        answer = await self._run(task, source, confinement, whole_s, eager=False, heard=heard)
        if not isinstance(answer, Planned) or not as_written(answer.plan, place, before):
            raise _strange(answer)
        if answer.indexed and not told:
            raise _strange(answer)
        return replace(answer.plan, index=told[0]) if answer.indexed else answer.plan

    async def look(
        self,
        source: ByteSource,
        *,
        extents: tuple[tuple[int, int], ...],
        before: Grown,
        ladder: LadderSettings,
        limits: Limits,
        folder: Path,
        timeout_s: float = 60.0,
    ) -> Grown:
        """What can be played of a source that still arrives: ``extents`` of it, as (begin, end), are there, the first from 0 on.

        ``before``: what the last look came to; ``folder``: an empty one, below the scratch folder, for what must be written out
        (`Grown.written`). Raises `MediaRefused` as `plan` does.
        """
        place = self._below_scratch(folder)
        confinement = _confinement(_PLAN_MEMORY, timeout_s, folder=str(place))
        task = GrowTask(ladder, limits, extents, replace(before, plan=None))
        answer = await self._run(task, source, confinement, timeout_s, eager=False)
        if not isinstance(answer, Looked) or not as_copied(answer.grown, before, place):
            raise _strange(answer)
        return answer.grown

    async def encode(
        self,
        source: ByteSource,
        plan: MediaPlan,
        *,
        chunks: range,
        renditions: tuple[str, ...],
        folder: Path,
        timeout_s: float,
        eager: bool = True,
        excerpt: Sequence[SegmentLayout] = (),
    ) -> EncodedChunk:
        """Encode consecutive chunks at a stretch for a set of renditions, decoding once; segments become files in ``folder`` (which
        exists).

        ``excerpt``: the segments of the sample index that `excerpt.segments_for` names; without them the source is opened.

        ``eager`` work runs at nice 19 and is stopped (SIGSTOP, not counted towards its time) while a task that is not
        eager runs. Raises `MediaRefused` as `plan` does, `ValueError` for a folder outside the scratch folder.
        """
        place = self._below_scratch(folder)
        chosen = tuple(rendition for rendition in plan.renditions if rendition.name in renditions)
        first, end = plan.chunks[chunks[0]][0], plan.chunks[chunks[-1]][1]
        pixels = sum((r.width or 0) * (r.height or 0) for r in chosen) + 2 * (plan.width or 0) * (plan.height or 0)
        memory = max(_ENCODE_MEMORY, _ENCODE_MEMORY // 2 + pixels * _ENCODE_BYTES_PER_PIXEL)
        confinement = _confinement(memory, timeout_s, nice=_EAGER_NICE if eager else 0, folder=str(place))
        task = EncodeTask(plan.recipe, chosen, first, end, tuple(excerpt))
        answer = await self._run(task, source, confinement, timeout_s, eager=eager)
        if not isinstance(answer, Encoded):
            raise _strange(answer)
        if not as_ordered(answer.chunk, task, place):
            raise _strange(answer)
        return answer.chunk

    async def poster(
        self, source: ByteSource, plan: MediaPlan, *, at_s: float | None, width: int = 1280, timeout_s: float = 30.0
    ) -> bytes:
        """A JPEG of the film at a time (None: a fitting one), upright, at most ``width`` pixels wide.

        Empty when the film has no picture.
        """
        task = PosterTask(plan.recipe, at_s, width, plan.duration)
        confinement = _confinement(_POSTER_MEMORY, timeout_s)
        answer = await self._run(task, source, confinement, timeout_s, eager=False)
        if not isinstance(answer, Picture):
            raise _strange(answer)
        return answer.jpeg

    async def sheet(self, source: ByteSource, plan: MediaPlan, number: int, *, eager: bool, timeout_s: float) -> bytes:
        """Sheet ``number`` (from 0) of the film's storyboard as a JPEG; empty when nothing of it can be decoded.

        `ValueError` when the film has no such sheet; raises `MediaRefused` as `plan` does.
        """
        if plan.storyboard is None or not 0 <= number < plan.storyboard.sheets:
            raise ValueError("the film has no such sheet")
        task = SheetTask(plan.recipe, plan.storyboard, number)
        confinement = _confinement(_POSTER_MEMORY, timeout_s, nice=_EAGER_NICE if eager else 0)
        answer = await self._run(task, source, confinement, timeout_s, eager=eager)
        if not isinstance(answer, Picture):
            raise _strange(answer)
        return answer.jpeg

    async def attempt(
        self,
        task: ProbeTask,
        *,
        folder: Path | None = None,
        memory: int = _ATTEMPT_MEMORY,
        timeout_s: float = _ATTEMPT_S,
    ) -> Attempted:
        """Let a child try to leave its cage: what it could do, and what confines it. Raises `MediaRefused` as `plan` does."""
        confinement = _confinement(memory, timeout_s, folder=str(folder) if folder else None)
        answer = await self._run(task, _Nothing(), confinement, timeout_s, eager=False)
        if not isinstance(answer, Attempted):
            raise _strange(answer)
        return answer

    def protections(self) -> dict[str, bool]:
        """What confines children on this machine: ``landlock``, ``network_namespace``, ``no_new_privs``, ``rlimits``."""
        return {name: name in self._held for name in PROTECTIONS}

    def _below_scratch(self, folder: Path) -> Path:
        place = folder.resolve()
        if not place.is_relative_to(self._scratch):
            raise ValueError("children write only below the scratch folder")
        return place

    async def _run(
        self,
        task: Task,
        source: ByteSource,
        confinement: Confinement,
        timeout_s: float,
        *,
        eager: bool,
        heard: Callable[[bytes], None] | None = None,
    ) -> Answer:
        child, status = await self._nursery.child()
        allowance = Allowance(timeout_s)
        path = str(source.path) if source.path is not None else None
        order = Order(task, SourceLocation(source.size, path), confinement)
        answering = asyncio.ensure_future(_converse(child, order, source, allowance, heard))
        out_of_time = asyncio.ensure_future(allowance.ended.wait())
        try:
            with self._precedence.running(child, allowance, eager=eager):
                await asyncio.wait((answering, out_of_time), return_when=asyncio.FIRST_COMPLETED)
            if answering.done():
                answer = answering.result()
            else:
                raise MediaRefused(FailureCode.TIMEOUT, _TIMED_OUT)
        except (EOFError, ConnectionError):
            raise await _cause_of_death(status) from None
        except ValueError as error:
            structlog.get_logger().warning("a media child broke the protocol", error=str(error))
            raise MediaRefused(FailureCode.MALFORMED_MEDIA, _DIED) from None
        finally:
            child.signal(signal.SIGKILL)
            answering.cancel()
            out_of_time.cancel()
            try:
                await asyncio.gather(answering, out_of_time, return_exceptions=True)
            finally:
                await child.end()
        return _honest(answer)


class _Nothing:
    """The source of a task that needs none."""

    size = 0
    path: Path | None = None

    async def read(self, offset: int, length: int) -> bytes:
        return b""


async def _converse(
    child: Child, order: Order, source: ByteSource, allowance: Allowance, heard: Callable[[bytes], None] | None
) -> Answer:
    """Until the child has done what it was ordered. ``heard``: whom to give the index that it may tell before, once."""
    await child.send(order)
    while True:
        answer = await child.receive()
        if isinstance(answer, Indexed):
            if heard is None:
                raise ValueError("an index that nobody asked for")
            heard(answer.index)
            heard = None
            continue
        if isinstance(answer, Want):
            ranges: tuple[tuple[int, int], ...] = ((answer.offset, answer.length),)
        elif isinstance(answer, WantAll):
            ranges = answer.ranges
        else:
            return answer
        if not may_be_read(ranges, source.size):
            raise ValueError("a range outside the source")
        # A slow store is not the film's fault.
        allowance.hold()
        try:
            found = await read_ranges(source, ranges)
            await child.send(_given(found, many=isinstance(answer, WantAll)))
        finally:
            allowance.release()


def _given(found: tuple[bytes, ...] | None, *, many: bool) -> Given | GivenAll:
    if many:
        return GivenAll(tuple(map(memoryview, found)) if found is not None else None)
    return Given(found[0] if found else None)


def _confinement(memory: int, timeout_s: float, *, nice: int = 0, folder: str | None = None) -> Confinement:
    processors = len(os.sched_getaffinity(0))
    # Wall time is what counts; this stops a child should the server not.
    return Confinement(memory=memory, cpu_s=int(timeout_s * processors) + 5, nice=nice, folder=folder)


def _honest(answer: Answer) -> Answer:
    """An answer that is a result; raises what the others mean."""
    if isinstance(answer, Refused):
        known = {code.value: code for code in FailureCode}
        raise MediaRefused(known.get(answer.code, FailureCode.INTERNAL), answer.detail[:500])
    if isinstance(answer, Broken):
        structlog.get_logger().error("a media task failed", detail=answer.detail[:4000])
        if answer.defect:
            raise MediaRefused(FailureCode.INTERNAL, _DEFECT)
        raise Unavailable("The film's bytes could not be read or its segments not be written.", retry_after=5.0)
    return answer


async def _cause_of_death(status: asyncio.Future[int]) -> Exception:
    await asyncio.wait((status,), timeout=_STATUS_S)
    if not status.done() or status.cancelled():
        return Unavailable("The media sandbox ended.", retry_after=1.0)
    code = status.result()
    if code == -signal.SIGXCPU:
        return MediaRefused(FailureCode.TIMEOUT, _TIMED_OUT)
    if code == -signal.SIGKILL:
        # Nobody here killed it: the kernel did, for memory (or for processor time beyond the hard limit).
        return MediaRefused(FailureCode.TOO_LARGE, _NO_MEMORY)
    return MediaRefused(FailureCode.MALFORMED_MEDIA, _DIED)


def _strange(answer: Answer) -> MediaRefused:
    structlog.get_logger().warning("a media child gave another answer than asked", kind=type(answer).__name__)
    return MediaRefused(FailureCode.MALFORMED_MEDIA, _DIED)
