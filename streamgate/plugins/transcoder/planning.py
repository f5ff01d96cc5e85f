"""Planning an uploaded film: from what was found out while it arrived, or anew; and storing what its plan brings along."""

from __future__ import annotations

import shutil
from pathlib import Path

import structlog
from msgspec.structs import replace

from streamgate.contracts.upload import Source
from streamgate.domain.identity import Prefix, new_id
from streamgate.media.model import Grown, LadderSettings, Limits, MediaPlan
from streamgate.media.sandbox import Sandbox
from streamgate.packaging.indexes import Divided
from streamgate.plugins.transcoder import planned, sentahead, source_bytes, standing
from streamgate.plugins.transcoder.films import Films
from streamgate.plugins.transcoder.planned import IndexObjects
from streamgate.plugins.transcoder.scans import Scans
from streamgate.plugins.transcoder.sources import Sources, both, checked
from streamgate.plugins.transcoder.store import Growth
from streamgate.ports.storage import BlobStore


class Planning:
    """Plans films. ``timeout_s``: seconds that one may take, besides those of writing it out."""

    def __init__(
        self,
        films: Films,
        sources: Sources,
        blobs: BlobStore,
        sandbox: Sandbox,
        ladder: LadderSettings,
        limits: Limits,
        timeout_s: float,
        scans: Scans,
    ) -> None:
        self._films = films
        self._sources = sources
        self._blobs = blobs
        self._sandbox = sandbox
        self._ladder = ladder
        self._limits = limits
        self._timeout_s = timeout_s
        self._scans = scans

    async def plan(self, asset_id: str, folder: Path, *, again: bool) -> tuple[str, MediaPlan, Divided | None]:
        """Plan the film, and store what it begins to play with; the name of the plan, the plan, and its index, if it has one, of
        which the rest is still to be stored.

        That is the name by which the film played while it arrived, where it goes on from what was written out then. ``folder``: for
        what the child writes, empty, and gone afterwards; ``again``: an earlier attempt may have left something behind.
        Raises `MediaRefused` for a film that cannot be played.
        """
        source, film = await self._sources.named(asset_id), await self._films.get(asset_id)
        growth = film.growth if film is not None else None
        if again:
            await planned.forget_others(self._blobs, asset_id, film.plans if film is not None else ())
        before = await planned.written_out(self._blobs, film) or self._scans.take(asset_id)
        if growth is not None and growth.ahead is not None:
            before = None  # nothing that was found by somebody's word counts
        plan_id = new_id(Prefix.PLAN)
        index = IndexObjects(self._blobs, asset_id, plan_id)
        try:
            # Planning reads little of the source: that the rest is there is looked up meanwhile.
            check = self._sources.complete(source)
            plan, honest = await both(
                checked(self._looked_at(source, folder, before, index), check), self._honest(source, growth)
            )
            plan = _after(growth, plan, honest=honest)
            goes_on = growth is not None and plan.remuxed_before > 0
            if growth is not None and goes_on and not standing.agrees(growth, plan, growth.count):
                _empty(folder)
                plan, goes_on = _after(growth, await self._looked_at(source, folder, None, index), honest=honest), False
            if growth is None or not goes_on:
                kept = await planned.kept(self._blobs, asset_id, plan_id, plan, source.parts, folder, index)
                return plan_id, kept, index.kept
            await index.drop()
            index = IndexObjects(self._blobs, asset_id, growth.plan_id)
            kept = await planned.kept(self._blobs, asset_id, growth.plan_id, plan, growth.parts, folder, index)
            return growth.plan_id, kept, index.kept
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            await index.drop()

    async def _honest(self, source: Source, growth: Growth | None) -> bool:
        """Whether the file ends with what was sent ahead, and the film played by."""
        if growth is None or growth.ahead is None or await sentahead.is_the_end(self._blobs, source, growth.ahead):
            return True
        structlog.get_logger().warning("the index that was sent ahead is not the file's", asset_id=source.asset_id)
        return False

    async def _looked_at(self, source: Source, folder: Path, before: Grown | None, index: IndexObjects) -> MediaPlan:
        async with source_bytes.opened(source, self._blobs) as data:
            return await self._sandbox.plan(
                data,
                ladder=self._ladder,
                limits=self._limits,
                timeout_s=self._timeout_s,
                folder=folder,
                before=before,
                early=index.begin,
            )


def _after(growth: Growth | None, plan: MediaPlan, *, honest: bool) -> MediaPlan:
    """The plan of a film that played while it arrived, or did not."""
    if growth is None:
        return replace(plan, begun=False)
    passes = {rendition.name for rendition in plan.renditions if rendition.passthrough is not None}
    begun = honest and passes >= {rendition.name for rendition in growth.plan.renditions}
    return replace(plan, begun=begun, warnings=plan.warnings if honest else (*plan.warnings, sentahead.ANOTHER))


def _empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir(mode=0o700)
