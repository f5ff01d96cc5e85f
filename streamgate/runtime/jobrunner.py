"""Runs handlers: claims, keeps leases alive, reports how attempts ended, lets go when told to stop."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import structlog

from streamgate.domain.errors import StreamGateError
from streamgate.runtime import jobstore
from streamgate.runtime.database import Transaction
from streamgate.runtime.jobbell import Bell, Ring
from streamgate.runtime.jobrow import JobRow
from streamgate.runtime.jobs import Attempt, Handler, Jobs, PermanentFailure, Snooze
from streamgate.runtime.jobstore import FIRST_BACKOFF_S, LONGEST_BACKOFF_S
from streamgate.runtime.trace import continued

PAUSE_S = 1.0
"""How long a slot waits after something went wrong, or for a due job that somebody else just took."""


def backoff_s(failures: int) -> float:
    """Full jitter over an exponential: between 0 and 2, 4, 8 … 300 seconds after the first, second, third … failure."""
    return random.uniform(0, min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2**failures))  # noqa: S311 (no secret)


@dataclass(slots=True)
class _Run:
    """An attempt at work. ``stopped``: the runner told it to stop, because its lease was lost or the process stops."""

    job: JobRow
    attempt: Attempt
    work: asyncio.Task[None]
    stopped: bool = False

    def stop(self) -> None:
        self.stopped = True
        self.work.cancel()

    @property
    def reason(self) -> str | None:
        error = None if self.work.cancelled() else self.work.exception()
        return None if error is None else str(error)


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
        if slots < 1:
            raise ValueError("a runner has at least one slot")
        self._jobs = jobs
        self._queue = queue
        self._handlers = dict(handlers)
        self._kinds = tuple(self._handlers)
        self._slots = slots
        self._max_priority = max_priority
        self._grace_s = grace_s
        self._drain = drain or asyncio.Event()
        self._stopping = asyncio.Event()
        group = f"{queue}-{'any' if max_priority is None else max_priority}"
        self._bell = Bell(jobs.bus, queue, group=group, takes=lambda: not self._done_claiming)
        self._worker = f"{socket.gethostname()[:48]}:{os.getpid()}"
        self._log = structlog.get_logger()

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Work for as long as the block runs, then let go within the grace time."""
        slots = [asyncio.create_task(self._slot()) for _ in range(self._slots)]
        rescuer = asyncio.create_task(self._rescuer())
        try:
            yield
        finally:
            self._stopping.set()
            self._bell.ring_all()
            try:
                await asyncio.wait(slots, timeout=self._grace_s)
            finally:
                for task in (*slots, rescuer):
                    task.cancel()
                await asyncio.gather(*slots, rescuer, return_exceptions=True)
                await self._bell.close()

    @property
    def _done_claiming(self) -> bool:
        return self._stopping.is_set() or self._drain.is_set()

    async def _slot(self) -> None:
        runs: set[asyncio.Task[None]] = set()
        try:
            while not self._done_claiming:
                try:
                    await self._turn(runs)
                except StreamGateError as error:
                    self._log.warning("jobs cannot be claimed", queue=self._queue, reason=error.detail)
                    await self._pause(PAUSE_S)
                except Exception as error:  # noqa: BLE001 (a slot must outlive whatever goes wrong with one job)
                    self._log.error("a slot stumbled", queue=self._queue, exc_info=error)
                    await self._pause(PAUSE_S)
            if runs:
                await asyncio.wait(runs)
        finally:
            for run in runs:
                run.cancel()
            await asyncio.gather(*runs, return_exceptions=True)

    async def _turn(self, runs: set[asyncio.Task[None]]) -> None:
        """Claim a job and run it until it ends or lets go of the slot, or wait until there may be one. ``runs``: of this slot."""
        with self._bell.enlisted() as ring:
            job = await self._claimed()
            if job is None:
                await self._idle(ring)
                return
        # There may be more than this one: let another slot look, or whoever a ring was meant for that came meanwhile.
        if not self._bell.ring() and ring.rung:
            await self._bell.pass_on()
        attempt = Attempt(job, self._jobs.database, self._jobs.clock)
        run, room = asyncio.create_task(self._run(job, attempt)), asyncio.create_task(attempt.lets_go.wait())
        earlier = frozenset(runs)
        runs.add(run)
        run.add_done_callback(runs.discard)
        try:
            await asyncio.wait((run, room), return_when=asyncio.FIRST_COMPLETED)
        finally:
            room.cancel()
        # One that ends beside the next is enough: what holds up the end holds up the work.
        await asyncio.gather(*earlier)
        if run.done():
            await run

    async def _rescuer(self) -> None:
        """Give expired leases back, three times per lease."""
        while not self._stopping.is_set():
            try:
                await self._jobs.rescue()
            except StreamGateError as error:
                self._log.warning("expired leases cannot be looked for", reason=error.detail)
            except Exception as error:  # noqa: BLE001 (the next look may go well)
                self._log.error("expired leases cannot be looked for", exc_info=error)
            await self._pause(self._jobs.lease_s / 3)

    async def _pause(self, seconds: float) -> None:
        """Wait, but not while the process stops."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    async def _claimed(self) -> JobRow | None:
        """`_claim`, to its end also when cancelled: a job claimed for nobody would wait until its lease expires."""
        claiming = asyncio.create_task(self._claim())
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:
            job = await claiming
            if job is not None:
                now = self._jobs.clock.now_ms()
                async with self._jobs.database.write() as tx:
                    await jobstore.release(tx, job.id, job.lease_token or "", now_ms=now, run_at_ms=now)
            raise

    async def _claim(self) -> JobRow | None:
        due = await self._due()
        if due is None or due > self._jobs.clock.now_ms():
            return None
        async with self._jobs.database.write() as tx:
            return await jobstore.claim(
                tx,
                self._jobs.clock.now_ms(),
                int(self._jobs.lease_s * 1000),
                queue=self._queue,
                kinds=self._kinds,
                worker=self._worker,
                max_priority=self._max_priority,
            )

    async def _due(self) -> int | None:
        async with self._jobs.database.read() as connection:
            return await jobstore.next_due(
                connection, queue=self._queue, kinds=self._kinds, max_priority=self._max_priority
            )

    async def _idle(self, ring: Ring) -> None:
        """Wait to be rung for, for the poll time, or until the next job is due."""
        unheard = await self._bell.listen()
        seconds = self._jobs.poll_s
        due = await self._due()
        if due is not None:
            until = (due - self._jobs.clock.now_ms()) / 1000
            if until <= 0 and unheard:
                return  # it may have come before we heard
            seconds = min(seconds, until if until > 0 else PAUSE_S)
        await ring.wait(max(0.01, seconds))

    async def _run(self, job: JobRow, attempt: Attempt) -> None:
        """One attempt, with its heartbeat, to its end; the end is written whatever it is."""
        run = _Run(job, attempt, asyncio.create_task(self._handle(attempt)))
        self._jobs.running[job.id] = run.work
        beat = asyncio.create_task(self._heartbeat(run))
        try:
            await asyncio.wait([run.work])
        except asyncio.CancelledError:
            run.stop()
            await asyncio.wait([run.work])
            raise
        finally:
            beat.cancel()
            if self._jobs.running.get(job.id) is run.work:
                del self._jobs.running[job.id]
            await asyncio.shield(self._settle(run))

    async def _handle(self, attempt: Attempt) -> None:
        structlog.contextvars.bind_contextvars(job=attempt.job.id, **continued(attempt.job.headers))
        await self._handlers[attempt.job.kind](attempt)

    async def _heartbeat(self, run: _Run) -> None:
        """Renew the lease; end the work when it is lost, canceled, or could not be renewed for a whole lease."""
        loop = asyncio.get_running_loop()
        good_until = loop.time() + self._jobs.lease_s
        while True:
            await asyncio.sleep(self._jobs.heartbeat_s)
            began = loop.time()
            try:
                async with asyncio.timeout_at(good_until), self._jobs.database.write() as tx:
                    until = self._jobs.clock.now_ms() + int(self._jobs.lease_s * 1000)
                    ours = await jobstore.heartbeat(tx, run.job.id, run.job.lease_token or "", until)
            except (StreamGateError, TimeoutError) as error:
                self._log.warning("a lease cannot be renewed", job=run.job.id, reason=str(error))
                ours = loop.time() < good_until
            else:
                good_until = began + self._jobs.lease_s
            if not ours:
                if not run.attempt.completed:
                    run.stop()
                return

    async def _settle(self, run: _Run) -> None:
        """Write how the attempt ended. While the database is away, try for the length of a lease; after that the rescuer
        gives the job to somebody."""
        log = self._log.bind(job=run.job.id, kind=run.job.kind, attempt=run.job.attempt, subject=run.job.subject)
        if run.attempt.completed:
            log.info("job ended", outcome="done", error=run.reason)
            return
        loop = asyncio.get_running_loop()
        until = loop.time() + self._jobs.lease_s
        while True:
            try:
                async with self._jobs.database.write() as tx:
                    outcome = await self._end(tx, run)
                break
            except StreamGateError as error:
                log.warning("the end of a job cannot be written", reason=error.detail)
                if self._stopping.is_set() or loop.time() >= until:
                    return
            await self._pause(min(PAUSE_S, self._jobs.lease_s / 10))
        if outcome == "queued":
            self._bell.ring()
        log.info("job ended", outcome=outcome, error=run.reason)

    async def _end(self, tx: Transaction, run: _Run) -> str:
        job, now, token = run.job, self._jobs.clock.now_ms(), run.job.lease_token or ""
        error = None if run.work.cancelled() else run.work.exception()
        if run.work.cancelled() and run.stopped:
            return await jobstore.release(tx, job.id, token, now_ms=now, run_at_ms=now) or "lost"
        if isinstance(error, Snooze):
            later = now + int(error.seconds * 1000)
            return await jobstore.release(tx, job.id, token, now_ms=now, run_at_ms=later) or "lost"
        if error is None and not run.work.cancelled():
            return "done" if await jobstore.complete(tx, job.id, token, now) else "lost"
        code, detail, permanent = _verdict(error)
        state = await jobstore.fail(
            tx, job, now, code=code, detail=detail, permanent=permanent, backoff_s=backoff_s(job.failures)
        )
        if code == "internal" and state in {"queued", "failed"}:
            self._log.error("job failed", job=job.id, kind=job.kind, exc_info=error)
        return state or "lost"


def _verdict(error: BaseException | None) -> tuple[str, str, bool]:
    """Code, sentence, and whether trying again is pointless. None: cancelled, and not by us."""
    if error is None:
        return "internal", "The attempt cancelled itself.", False
    if isinstance(error, PermanentFailure):
        return error.code, error.detail, True
    if isinstance(error, StreamGateError):
        return error.code, error.detail, False
    return "internal", f"The attempt failed unexpectedly ({type(error).__name__}).", False
