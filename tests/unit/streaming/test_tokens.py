"""Playback tokens: 46 bytes, one spelling, no forgeries."""

from __future__ import annotations

import base64
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgate.domain.errors import ConfigurationError
from streamgate.domain.identity import Prefix, new_id
from streamgate.plugins.streaming.tokens import LENGTH, PlaybackTokens, load_keys, parse_keys

KEYS = ((7, bytes(range(32))), (8, bytes(32)))
TOKENS = PlaybackTokens(KEYS)
SESSION, ASSET = new_id(Prefix.PLAYBACK), new_id(Prefix.ASSET)
TOKEN = TOKENS.mint(SESSION, ASSET, 2_000_000_000)


def test_a_token_says_what_it_was_minted_with() -> None:
    claims = TOKENS.open(TOKEN)
    assert claims is not None
    assert (claims.session_id, claims.asset_id, claims.expires_s) == (SESSION, ASSET, 2_000_000_000)
    assert len(TOKEN) == LENGTH == 62


@pytest.mark.parametrize("at", range(LENGTH))
def test_any_changed_character_is_refused(at: int) -> None:
    for character in "A_9z":
        forged = TOKEN[:at] + character + TOKEN[at + 1 :]
        assert forged == TOKEN or TOKENS.open(forged) is None


@given(st.text(max_size=80))
def test_no_text_raises(text: str) -> None:
    assert TOKENS.open(text) is None


@given(st.binary(min_size=46, max_size=46))
def test_no_bytes_pass(raw: bytes) -> None:
    assert TOKENS.open(base64.urlsafe_b64encode(raw).rstrip(b"=").decode()) is None


def test_other_spellings_of_the_same_bytes_are_refused() -> None:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = alphabet.index(TOKEN[-1])
    assert [TOKENS.open(TOKEN[:-1] + alphabet[last ^ bits]) for bits in range(1, 16)] == [None] * 15
    assert TOKENS.open(TOKEN + "=") is None


def test_keys_rotate() -> None:
    newer = PlaybackTokens((KEYS[1], KEYS[0]))
    assert newer.open(TOKEN) == TOKENS.open(TOKEN)
    assert newer.mint(SESSION, ASSET, 1) != TOKENS.mint(SESSION, ASSET, 1)
    assert PlaybackTokens((KEYS[1],)).open(TOKEN) is None
    assert PlaybackTokens(((7, bytes(32)),)).open(TOKEN) is None


def test_checking_is_fast() -> None:
    began = time.perf_counter()
    for _ in range(2000):
        TOKENS.open(TOKEN)
    assert (time.perf_counter() - began) / 2000 < 100e-6


def test_keys_are_made_once_and_kept_private(tmp_path: Path) -> None:
    keys = load_keys(None, tmp_path)
    assert load_keys(None, tmp_path) == keys
    assert (tmp_path / "keys" / "playback.keys").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "content", [b"", b"# only words\n", b"1 abc\n", b"256 " + b"a" * 64, b"1 " + b"a" * 64 + b"\n1 " + b"b" * 64]
)
def test_a_key_file_that_is_none_stops_the_start(content: bytes) -> None:
    with pytest.raises(ConfigurationError):
        parse_keys(content, Path("playback.keys"))


def test_a_key_file_that_is_missing_or_open_to_others_stops_the_start(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    with pytest.raises(ConfigurationError, match="does not exist"):
        load_keys(path, tmp_path)
    path.write_text("1 " + "a" * 64)
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match="read by others"):
        load_keys(path, tmp_path)
