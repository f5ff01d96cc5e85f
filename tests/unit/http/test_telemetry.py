"""Logs hold no secrets."""

from __future__ import annotations

import pytest

from streamgate.runtime.telemetry import MASK, redact, redact_text


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("/p/AbCdEfGhIjKlMnOpQrStUvWxYz0123456789/ast_1/master.m3u8", "AbCdEfGh"),
        ("Authorization: Bearer abc.def-123", "abc.def-123"),
        ("key sg_admin_0123456789abcdef failed", "0123456789abcdef"),
        ("got eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl", "eyJzdWIiOiIxIn0"),
    ],
)
def test_secrets_inside_text_are_masked(text: str, secret: str) -> None:
    assert secret not in redact_text(text)
    assert MASK in redact_text(text)


def test_values_with_secret_names_are_masked_and_others_kept() -> None:
    event = redact(
        None, "info", {"event": "signed in", "refresh_token": "x", "signature": b"y", "account": "eip155:1:0xaa"}
    )
    assert event == {"event": "signed in", "refresh_token": MASK, "signature": MASK, "account": "eip155:1:0xaa"}
