"""Two hundred damaged films end as films or as named refusals; ``make fuzz`` tries thousands."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.fuzz import run


@pytest.mark.timeout(240)
async def test_a_damaged_film_is_a_film_or_a_named_refusal(tmp_path: Path) -> None:
    ends, wrong = await run(tmp_path, 200, seed=20_261_124)
    assert wrong == []
    assert sum(ends.values()) == 200
    assert ends["film"] > 20
    assert len(ends) > 2
