"""Runs handlers: claims, keeps leases alive, reports how attempts ended, lets go when told to stop."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

import structlog

from streamgate.domain.errors import StreamGateError, Unavailable
from streamgate.ports.bus import Message
from streamgate.runtime import jobstore
from streamgate.runtime.jobs import Attempt, Handler, Jobs, LeaseLost, PermanentFailure, Snooze
from streamgate.runtime.jobstore import FIRST_BACKOFF_S, LONGEST_BACKOFF_S, JobRow


def backoff_s(failures: int) -> float:
    """Full jitter over an exponential: between 0 and 2, 4, 8 … 300 seconds after the first, second, third … failure."""
    return random.uniform(0, min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2**failures))  # noqa: S311 (no secret)


class Runner:
    """Works on one queue with a fixed number of slots."""

    def __init__(
        self,
        jobs: Jobs,
        queue: str,
        handlers: Mapping[str, Handler],
        slots: int,
        max_priority: int | None,
        grace_s: float,
        drain: asyncio.Event | None,
    ) -> None:
        self._jobs = jobs
        self._queue = queue
        self._handlers = dict(handlers)
        self._slots = slots
        self._max_priority = max_priority
        self._grace_s = grace_s
        self._drain = drain or asyncio.Event()
        self._stopping = asyncio.Event()
        self._rung = asyncio.Event()
        self._worker = f"{socket.gethostname()}:{os.getpid()}"[:64]
        self._log = structlog.get_logger()

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Work for as long as the block runs, then let go within the grace time."""
        listening = await self._jobs.bus.listen(f"sg.jobs.{self._queue}", self._hear)
        async with listening:
            loops = [asyncio.create_task(self._slot()) for _ in range(self._slots)]
            rescuer = asyncio.create_task(self._rescuer())
            try:
                yield
            finally:
                self._stopping.set()
                self._rung.set()
                rescuer.cancel()
                _, late = await asyncio.wait(loops, timeout=self._grace_s)
                for task in late:
                    task.cancel("released")
                await asyncio.gather(*loops, rescuer, return_exceptions=True)

    async def _hear(self, _message: Message) -> None:
        self._rung.set()

    @property
    def _done_claiming(self) -> bool:
        return self._stopping.is_set() or self._drain.is_set()

    async def _slot(self) -> None:
        while not self._done_claiming:
            self._rung.clear()
            try:
                job = await self._claim()
            except Unavailable as error:
                self._log.warning("jobs cannot be claimed", queue=self._queue, reason=error.detail)
                await self._idle(1.0)
                continue
            if job is None:
                await self._idle(self._jobs.poll_s)
            else:
                self._rung.set()  # there may be more than this one: let another slot look
                await self._run(job)

    async def _claim(self) -> JobRow | None:
        now = self._jobs.clock.now_ms()
        async with self._jobs.database.read() as connection:
            due = await jobstore.next_due(connection, self._queue)
        if due is None or due > now:
            return None
        async with self._jobs.database.write() as tx:
            return await jobstore.claim(
                tx,
                now,
                int(self._jobs.lease_s * 1000),
                queue=self._queue,
                kinds=tuple(self._handlers),
                worker=self._worker,
                max_priority=self._max_priority,
            )

    async def _idle(self, seconds: float) -> None:
        """Wait to be rung, for the poll time, or until the next job is due."""
        with suppress(Unavailable):
            async with self._jobs.database.read() as connection:
                due = await jobstore.next_due(connection, self._queue)
            if due is not None:
                until = (due - self._jobs.clock.now_ms()) / 1000
                seconds = min(seconds, until) if until > 0 else min(seconds, 1.0)
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.01, seconds)):
                await self._rung.wait()

    async def _run(self, job: JobRow) -> None:
        """One attempt, with its heartbeat, to its end; the end is written whatever it is."""
        log = self._log.bind(job=job.id, kind=job.kind, attempt=job.attempt, subject=job.subject)
        attempt = Attempt(job, self._jobs.database, self._jobs.clock)
        work = asyncio.create_task(self._handlers[job.kind](attempt))  # type: ignore[arg-type]
        self._jobs.running[job.id] = work
        beat = asyncio.create_task(self._heartbeat(job, work))
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError:
            work.cancel("released")
            await asyncio.wait([work])
            await asyncio.shield(self._settle(job, attempt, work, log))
            raise
        finally:
            beat.cancel()
            self._jobs.running.pop(job.id, None)
        await self._settle(job, attempt, work, log)

    async def _heartbeat(self, job: JobRow, work: asyncio.Task[None]) -> None:
        """Renew the lease; end the work when it is lost, canceled, or could not be renewed for a whole lease."""
        loop = asyncio.get_running_loop()
        good_until = loop.time() + self._jobs.lease_s
        while True:
            await asyncio.sleep(self._jobs.heartbeat_s)
            try:
                async with self._jobs.database.write() as tx:
                    until = self._jobs.clock.now_ms() + int(self._jobs.lease_s * 1000)
                    ours = await jobstore.heartbeat(tx, job.id, job.lease_token or "", until)
            except Unavailable:
                ours = loop.time() < good_until
            else:
                good_until = loop.time() + self._jobs.lease_s
            if not ours:
                work.cancel("lost")
                return

    async def _settle(self, job: JobRow, attempt: Attempt, work: asyncio.Task[None], log: structlog.BoundLogger) -> None:
        """Write how the attempt ended. When the database is away the lease expires and the rescuer does it."""
        if attempt.completed:
            log.info("job done")
            return
        try:
            async with self._jobs.database.write() as tx:
                outcome = await self._end(tx, job, work)
        except Unavailable as error:
            log.warning("the end of a job could not be written", reason=error.detail)
            return
        if outcome == "queued":
            self._rung.set()
        log.info("job ended", outcome=outcome, error=_reason(work))

    async def _end(self, tx: jobstore.Transaction, job: JobRow, work: asyncio.Task[None]) -> str:
        now, token = self._jobs.clock.now_ms(), job.lease_token or ""
        if work.cancelled():
            if await jobstore.end_canceled(tx, job.id, token, now):
                return "canceled"
            return "queued" if await jobstore.release(tx, job.id, token, now) else "lost"
        error = work.exception()
        if error is None:
            return "done" if await jobstore.complete(tx, job.id, token, now) else "lost"
        if isinstance(error, LeaseLost):
            if await jobstore.end_canceled(tx, job.id, token, now):
                return "canceled"
            return "lost"
        if isinstance(error, Snooze):
            later = now + int(error.seconds * 1000)
            return "queued" if await jobstore.release(tx, job.id, token, later) else "lost"
        code, detail, permanent = _verdict(error)
        state = await jobstore.fail(
            tx, job, now, code=code, detail=detail, permanent=permanent, backoff_s=backoff_s(job.failures)
        )
        if code == "internal":
            self._log.error("job failed", job=job.id, kind=job.kind, exc_info=error)
        return state or "lost"


def _verdict(error: BaseException) -> tuple[str, str, bool]:
    """Code, sentence, and whether trying again is pointless."""
    if isinstance(error, PermanentFailure):
        return error.code, error.detail, True
    if isinstance(error, StreamGateError):
        return error.code, error.detail, False
    return "internal", f"The attempt failed unexpectedly ({type(error).__name__}).", False


def _reason(work: asyncio.Task[None]) -> str | None:
    if work.cancelled() or work.exception() is None:
        return None
    return str(work.exception())
