"""Pieces of a film's video as small files of their own, made from its sample index: whoever encodes a few seconds of three hours
opens a few seconds."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from fractions import Fraction

from msgspec.structs import replace

from streamgate.media.model import MediaPlan
from streamgate.media.recipe import Recipe, unpack

MAX_EXCERPT = 192 << 20
"""Most bytes of a film that are made a file of their own; it is held in memory."""


def segments_for(plan: MediaPlan, chunks: range) -> tuple[int, range] | None:
    """What of the sample index an encoder of consecutive chunks needs: the track, and its segments. None where the index has no
    video."""
    recipe = unpack(plan.recipe)
    cut = recipe.video.cut if recipe.video is not None else None
    picture = next((r for r in plan.encoded if r.kind == "video"), None)
    if cut is None or picture is None:
        return None
    first, end = plan.chunks[chunks[0]][0], plan.chunks[chunks[-1]][1]
    if first >= len(picture.boundaries) - 1:
        return None
    edges = picture.boundaries[first], picture.boundaries[min(end, len(picture.boundaries) - 1)]
    # From the film's clock to that of the index.
    shift = recipe.zero() * cut.timescale - cut.shift
    begins, ends = (Fraction(edge * cut.timescale, picture.timescale) + shift for edge in edges)
    return cut.track, range(max(0, bisect_right(cut.starts, begins) - 1), bisect_left(cut.starts, ends))


def excerpted(recipe: Recipe) -> Recipe:
    """The recipe for a file that holds nothing but segments of the index."""
    assert recipe.video is not None
    assert recipe.video.cut is not None
    zero = recipe.zero() - Fraction(recipe.video.cut.shift, recipe.video.cut.timescale)
    return replace(recipe, origin=(zero.numerator, zero.denominator), video=replace(recipe.video, index=0))
