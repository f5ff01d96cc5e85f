"""Segments that are bytes of the upload: looked up in the film's stored index, read by ranges, and joined."""

from __future__ import annotations

from streamgate.contracts.transcoder import Presentation, RenditionPlan
from streamgate.domain.errors import NotFound, Unavailable
from streamgate.packaging.indexes import Indexes
from streamgate.packaging.segments import SegmentLayout
from streamgate.ports.storage import BlobStore
from streamgate.runtime.joined import Joined


class Passthrough:
    """Makes segments of films whose source passes through. Nothing here opens a media file."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._indexes = Indexes(blobs)

    async def segment(self, presentation: Presentation, rendition: RenditionPlan, number: int) -> bytes:
        """Segment ``number`` (from 0); `Unavailable` when the source or its index cannot be read."""
        source, track = presentation.source, rendition.passthrough
        if source is None or track is None:
            raise NotFound("The film has no such segment.")
        joined = Joined(source.parts, self._blobs)
        try:
            layout = await self._indexes.layout(source.index_key, source.size, track, number)
        except (NotFound, LookupError, ValueError):
            raise Unavailable("The film's index could not be read.", retry_after=5) from None
        try:
            return self._read_at_hand(joined, layout) or layout.joined(
                [(offset, await joined.read(offset, length)) for offset, length in layout.span()]
            )
        except NotFound:
            raise Unavailable("The uploaded bytes of the film could not be read.", retry_after=5) from None
        except ValueError:
            raise Unavailable("The uploaded bytes of the film are not complete.", retry_after=5) from None

    def at_hand(self, presentation: Presentation, rendition: RenditionPlan, number: int) -> bytes | None:
        """The same where it can be made without waiting for anything; None says nothing."""
        source, track = presentation.source, rendition.passthrough
        if source is None or track is None:
            return None
        try:
            layout = self._indexes.at_hand(source.index_key, track, number)
            return None if layout is None else self._read_at_hand(Joined(source.parts, self._blobs), layout)
        except (LookupError, ValueError):
            return None

    def _read_at_hand(self, source: Joined, layout: SegmentLayout) -> bytes | None:
        """A segment whose bytes can be had without waiting: read in one piece where its ranges are close together, else one by
        one."""
        place = source.within_one(*layout.covering)
        if place is None:
            return None
        if layout.is_close:
            data = self._blobs.at_hand(*place, (0,), (layout.end,))
            return None if data is None else layout.joined(((layout.base, data),))
        data = self._blobs.at_hand(*place, layout.starts, layout.ends)
        return None if data is None else layout.head + data
