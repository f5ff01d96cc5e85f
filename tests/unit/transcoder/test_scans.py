"""Scans of uploads are handed over once, and take no more memory than they may."""

from __future__ import annotations

from streamgate.media.model import Grown
from streamgate.plugins.transcoder.scans import Scans


async def test_a_scan_is_handed_over_once_as_it_stood_last() -> None:
    scans = Scans()
    scans.looked("ast_1", Grown(state=b"first", count=1))
    scans.looked("ast_1", Grown(state=b"second", count=2))
    assert scans.take("ast_1") == Grown(state=b"second")
    assert scans.take("ast_1") is None


async def test_a_film_that_has_no_scan_any_more_or_is_written_out_has_none() -> None:
    scans = Scans()
    for last in (Grown(), Grown(state=b"of what was written", size=9)):
        scans.looked("ast_1", Grown(state=b"first"))
        scans.looked("ast_1", last)
        assert scans.take("ast_1") is None


async def test_scans_that_rest_make_room() -> None:
    scans = Scans(most=10)
    for asset_id in ("ast_1", "ast_2", "ast_1", "ast_3"):
        scans.looked(asset_id, Grown(state=b"four"))
    assert [scans.take(asset_id) is not None for asset_id in ("ast_1", "ast_2", "ast_3")] == [True, False, True]
    scans.looked("ast_1", Grown(state=b"more than ten bytes"))
    assert scans.take("ast_1") is None
