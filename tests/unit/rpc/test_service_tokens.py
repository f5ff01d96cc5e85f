"""Tokens of services: good for one callee until they end, however often they were shown before."""

from __future__ import annotations

import time

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from streamgate.domain.errors import Unauthenticated
from streamgate.runtime.rpc.tokens import LEEWAY_S, LIFETIME_S, ServiceSigner, ServiceVerifier
from tests.support.clock import FakeClock
from tests.support.server import wait_for

KEY = Ed25519PrivateKey.generate()


def token(callee: str, *, ago_s: float = 0.0, key: Ed25519PrivateKey = KEY) -> str:
    """A token of the streaming service, issued some seconds ago."""
    return ServiceSigner("streaming", key, FakeClock(int((time.time() - ago_s) * 1000))).token(callee)


@pytest.fixture
def verifier() -> ServiceVerifier:
    return ServiceVerifier("metadata", {"streaming": KEY.public_key()})


def test_a_token_is_good_for_its_callee_again_and_again(verifier: ServiceVerifier) -> None:
    good = token("metadata")
    assert [verifier.caller(good) for _ in range(3)] == ["streaming"] * 3
    for wrong in (token("auth"), token("metadata", key=Ed25519PrivateKey.generate()), good[:-4] + "AAAA"):
        for _ in range(2):
            with pytest.raises(Unauthenticated):
                verifier.caller(wrong)
    assert [verifier.caller("sg_key_x"), verifier.caller("")] == [None, None]


def test_a_token_that_was_good_ends_when_it_says(verifier: ServiceVerifier) -> None:
    ending = token("metadata", ago_s=LIFETIME_S + LEEWAY_S - 1.5)
    assert verifier.caller(ending) == "streaming"

    def refused() -> bool:
        try:
            return verifier.caller(ending) is None
        except Unauthenticated:
            return True

    wait_for(refused, 5, 0.05)
