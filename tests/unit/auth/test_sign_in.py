"""Signing in: what works, and every way around it that must not."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import time
from pathlib import Path

import pytest
from sqlalchemy import func, select

from streamgate.adapters.chain_jsonrpc import JsonRpcChains
from streamgate.contracts.auth import Access, ChallengeRequest, KeyRequest, RefreshRequest, SignIn
from streamgate.domain.errors import Forbidden, NotFound, StreamGateError, Unauthenticated, ValidationFailed
from streamgate.domain.identity import ANONYMOUS, Caller, Role
from streamgate.plugins.auth.siwe import parse
from streamgate.plugins.auth.tables import sessions
from streamgate.runtime.database import Database
from streamgate.runtime.tables import outbox
from tests.support.access import ADMIN_KEY, PUBLIC_URL, access
from tests.support.clock import FakeClock
from tests.support.wallet import Wallet

WALLET = Wallet()
ACCOUNT = f"eip155:1:{WALLET.address.lower()}"


@pytest.fixture
def auth(database: Database, clock: FakeClock, tmp_path: Path) -> Access:
    return access(database, clock, JsonRpcChains({}, clock), tmp_path)


async def challenged(auth: Access, wallet: Wallet = WALLET, **more: object) -> str:
    request = ChallengeRequest(address=wallet.address, chain_id=1, **more)  # type: ignore[arg-type]
    return (await auth.challenge(ANONYMOUS, request, None)).message


async def signed_in(auth: Access, wallet: Wallet = WALLET) -> tuple[Caller, str]:
    message = await challenged(auth, wallet)
    tokens = await auth.sign_in(ANONYMOUS, SignIn(message=message, signature=wallet.sign(message)), None)
    import jwt

    sid = jwt.decode(tokens.access_token, options={"verify_signature": False})["sid"]
    return Caller(account=tokens.account, role=Role.CREATOR, session_id=sid), tokens.refresh_token


async def announced(database: Database) -> int:
    async with database.read() as connection:
        return (await connection.execute(select(func.count()).select_from(outbox))).scalar_one()


async def test_the_message_is_the_servers_own_and_says_what_is_signed(auth: Access) -> None:
    message = parse(await challenged(auth))
    assert (message.domain, message.uri, message.address) == ("films.example", PUBLIC_URL, WALLET.address)
    assert message.chain_id == 1
    assert len(message.nonce) == 22
    assert message.expiration_time == "2026-05-28T20:31:40.000Z"
    by_account = ChallengeRequest(account=f"eip155:137:{WALLET.address}")
    assert parse((await auth.challenge(ANONYMOUS, by_account, None)).message).chain_id == 137


async def test_a_signed_message_is_good_once(auth: Access) -> None:
    message = await challenged(auth)
    signed = SignIn(message=message, signature=WALLET.sign(message))
    tokens = await auth.sign_in(ANONYMOUS, signed, None)
    assert (tokens.account, tokens.expires_in) == (ACCOUNT, 600)
    with pytest.raises(Unauthenticated):
        await auth.sign_in(ANONYMOUS, signed, None)


async def test_of_a_hundred_at_once_one_gets_a_session(auth: Access, database: Database) -> None:
    message = await challenged(auth)
    signed = SignIn(message=message, signature=WALLET.sign(message))
    answers = await asyncio.gather(*(auth.sign_in(ANONYMOUS, signed, None) for _ in range(100)), return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, Unauthenticated)]
    assert len(refused) == 99
    async with database.read() as connection:
        assert (await connection.execute(select(func.count()).select_from(sessions))).scalar_one() == 1


async def test_a_wrong_signature_uses_the_challenge_up(auth: Access) -> None:
    message = await challenged(auth)
    with pytest.raises(Unauthenticated):
        await auth.sign_in(ANONYMOUS, SignIn(message=message, signature=Wallet().sign(message)), None)
    with pytest.raises(Unauthenticated):
        await auth.sign_in(ANONYMOUS, SignIn(message=message, signature=WALLET.sign(message)), None)


async def test_a_message_from_elsewhere_is_refused(auth: Access) -> None:
    ours = await challenged(auth)
    for message in (
        ours.replace("films.example", "evil.example"),
        ours.replace("Chain ID: 1", "Chain ID: 2"),
        ours + "\n",
        "Sign in to films.example",
    ):
        with pytest.raises(Unauthenticated):
            await auth.sign_in(ANONYMOUS, SignIn(message=message, signature=WALLET.sign(message)), None)


async def test_an_expired_challenge_is_refused(auth: Access, clock: FakeClock) -> None:
    message = await challenged(auth)
    clock.advance(300)
    with pytest.raises(Unauthenticated):
        await auth.sign_in(ANONYMOUS, SignIn(message=message, signature=WALLET.sign(message)), None)


async def test_a_long_message_costs_nothing(auth: Access) -> None:
    began = time.perf_counter()
    with pytest.raises(Unauthenticated):
        await auth.sign_in(ANONYMOUS, SignIn(message="x" * 20_000, signature="0x"), None)
    assert time.perf_counter() - began < 0.1


async def test_a_page_must_bind_its_sign_in_to_itself(auth: Access) -> None:
    request = ChallengeRequest(address=WALLET.address, chain_id=1)
    with pytest.raises(ValidationFailed) as refused:
        await auth.challenge(ANONYMOUS, request, PUBLIC_URL)
    assert refused.value.errors[0].pointer == "/binding"
    with pytest.raises(Forbidden):
        await auth.challenge(ANONYMOUS, request, "https://evil.example")
    secret = "kept by the page"
    binding = base64.urlsafe_b64encode(hashlib.sha256(secret.encode()).digest()).rstrip(b"=").decode()
    for presented, origin in ((None, PUBLIC_URL), ("another", PUBLIC_URL), (secret, "https://evil.example")):
        message = await challenged(auth, binding=binding)
        signed = SignIn(message=message, signature=WALLET.sign(message), binding_secret=presented)
        with pytest.raises(StreamGateError) as failed:
            await auth.sign_in(ANONYMOUS, signed, origin)
        assert failed.value.code in {"unauthenticated", "forbidden"}
    message = await challenged(auth, binding=binding)
    signed = SignIn(message=message, signature=WALLET.sign(message), binding_secret=secret)
    assert (await auth.sign_in(ANONYMOUS, signed, PUBLIC_URL)).account == ACCOUNT


async def test_a_challenge_without_binding_cannot_be_finished_by_a_page(auth: Access) -> None:
    message = await challenged(auth)
    with pytest.raises(Unauthenticated):
        await auth.sign_in(ANONYMOUS, SignIn(message=message, signature=WALLET.sign(message)), PUBLIC_URL)


@pytest.mark.parametrize(
    "request_",
    [
        ChallengeRequest(),
        ChallengeRequest(address=WALLET.address),
        ChallengeRequest(chain_id=1),
        ChallengeRequest(address="0x12", chain_id=1),
        ChallengeRequest(address=WALLET.address, chain_id=0),
        ChallengeRequest(address=WALLET.address, chain_id=2**60),
        ChallengeRequest(account="solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp:abc"),
        ChallengeRequest(account=f"eip155:01:{WALLET.address}"),
        ChallengeRequest(account=f"eip155:1:{WALLET.address}", address=WALLET.address, chain_id=1),
    ],
)
async def test_a_wallet_that_cannot_be_meant_is_refused(auth: Access, request_: ChallengeRequest) -> None:
    with pytest.raises(ValidationFailed) as refused:
        await auth.challenge(ANONYMOUS, request_, None)
    assert refused.value.errors


async def test_refreshing_rotates_and_a_repeated_answer_is_the_same(auth: Access, clock: FakeClock) -> None:
    _, first = await signed_in(auth)
    second = await auth.refresh(ANONYMOUS, RefreshRequest(refresh_token=first))
    clock.advance(9)
    again = await auth.refresh(ANONYMOUS, RefreshRequest(refresh_token=first))
    assert again.refresh_token == second.refresh_token != first
    third = await auth.refresh(ANONYMOUS, RefreshRequest(refresh_token=second.refresh_token))
    assert third.refresh_token not in {first, second.refresh_token}


async def test_an_old_refresh_token_ends_the_whole_family(auth: Access, clock: FakeClock, database: Database) -> None:
    caller, first = await signed_in(auth)
    second = await auth.refresh(ANONYMOUS, RefreshRequest(refresh_token=first))
    clock.advance(11)
    for token in (first, second.refresh_token):
        with pytest.raises(Unauthenticated):
            await auth.refresh(ANONYMOUS, RefreshRequest(refresh_token=token))
    assert not await auth.credential_live(caller.session_id, None)
    assert await announced(database) == 1


async def test_many_refreshes_at_once_give_one_successor(auth: Access) -> None:
    _, first = await signed_in(auth)
    answers = await asyncio.gather(*(auth.refresh(ANONYMOUS, RefreshRequest(refresh_token=first)) for _ in range(20)))
    assert len({answer.refresh_token for answer in answers}) == 1


async def test_a_refresh_token_that_never_was_is_refused(auth: Access) -> None:
    for token in ("", "sg_rt_" + "x" * 43, "x" * 5000):
        with pytest.raises(Unauthenticated):
            await auth.refresh(ANONYMOUS, RefreshRequest(refresh_token=token))


async def test_a_session_ends_at_its_time(auth: Access, clock: FakeClock) -> None:
    caller, token = await signed_in(auth)
    clock.advance(30 * 24 * 3600)
    assert not await auth.credential_live(caller.session_id, None)
    with pytest.raises(Unauthenticated):
        await auth.refresh(ANONYMOUS, RefreshRequest(refresh_token=token))


async def test_signing_out_ends_the_session_and_says_so(auth: Access, database: Database) -> None:
    caller, token = await signed_in(auth)
    assert [s.id for s in (await auth.sessions(caller)).items] == [caller.session_id]
    assert (await auth.session(caller)).account == ACCOUNT
    await auth.sign_out(caller)
    await auth.sign_out(caller)
    assert await announced(database) == 1
    assert (await auth.sessions(caller)).items == ()
    with pytest.raises(Unauthenticated):
        await auth.refresh(ANONYMOUS, RefreshRequest(refresh_token=token))


async def test_nobody_ends_the_session_of_another(auth: Access) -> None:
    caller, _ = await signed_in(auth)
    other, _ = await signed_in(auth, Wallet())
    for session_id in (caller.session_id or "", "ses_nonsense", ""):
        with pytest.raises(NotFound):
            await auth.revoke_session(other, session_id)
    assert await auth.credential_live(caller.session_id, None)
    await auth.revoke_session(caller, caller.session_id or "")
    assert not await auth.credential_live(caller.session_id, None)


async def test_the_administrators_key_is_known_and_no_other(auth: Access) -> None:
    admin = await auth.resolve_key(ADMIN_KEY)
    assert (admin.account, admin.role) == ("admin", Role.ADMIN)
    for wrong in (ADMIN_KEY[:-1], ADMIN_KEY + "x", "", "sg_key_" + "x" * 43):
        with pytest.raises(Unauthenticated):
            await auth.resolve_key(wrong)


async def test_a_key_ends_at_its_time_and_never_outranks_its_owner(
    auth: Access, clock: FakeClock, database: Database, tmp_path: Path
) -> None:
    caller, _ = await signed_in(auth)
    key = await auth.create_key(caller, KeyRequest(name="for a minute", expires_in=60))
    assert (await auth.resolve_key(key.key or "")).role is Role.CREATOR
    demoted = access(database, clock, JsonRpcChains({}, clock), tmp_path, creators=[])
    assert (await demoted.resolve_key(key.key or "")).role is Role.VIEWER
    clock.advance(60)
    with pytest.raises(Unauthenticated):
        await auth.resolve_key(key.key or "")
    viewer = Caller(account=ACCOUNT, role=Role.VIEWER)
    with pytest.raises(Forbidden):
        await auth.create_key(viewer, KeyRequest(name="none"))
    for wrong in (KeyRequest(name=""), KeyRequest(name="x", expires_in=1)):
        with pytest.raises(ValidationFailed):
            await auth.create_key(caller, wrong)
