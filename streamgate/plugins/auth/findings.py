"""What one leaf of a policy says of a wallet: what it asks a chain for, and what the answers mean.

A balance leaf is false only where its standard says so: a balance that is too small, or a revert of ``ownerOf`` (ERC-721),
which is how a token that does not exist shows. A contract without code, and an answer that is not of the standard, are
mistakes of the policy and no ground for any answer: unknown, never a zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from streamgate.domain.clock import instant
from streamgate.domain.policy import Allowlist, Erc20, Erc721, Erc1155, Holding, Native, TimeWindow, Truth, at_least
from streamgate.plugins.auth.chain_reads import BALANCE_OF, BALANCE_OF_ID, OWNER_OF, address, uint, word
from streamgate.ports.chain import Answer, Balance, Call, Head, Read, Returned, Unread

SHOWN_IDS = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of a leaf. ``need`` and ``have`` are for people: ``have`` is the number held, where it is known.

    ``owned``: which of the ids that an ERC-721 leaf names are the wallet's.
    """

    truth: Truth
    need: str
    have: str
    head: Head | None = None
    owned: tuple[int, ...] = ()


def listed(leaf: Allowlist, wallet: str) -> Finding:
    """Whether the wallet is on the list. ``wallet``: in lower case, here and below."""
    found = wallet in leaf.addresses
    return Finding(found, "to be on the list", "on the list" if found else "not on the list")


def in_window(leaf: TimeWindow, now: int) -> Finding:
    """Whether ``now`` (ms since the epoch) is inside the window."""
    inside = (leaf.from_ms is None or now >= leaf.from_ms) and (leaf.until_ms is None or now < leaf.until_ms)
    bounds = [
        f"{name} {instant(ms).isoformat()}"
        for name, ms in (("from", leaf.from_ms), ("until", leaf.until_ms))
        if ms is not None
    ]
    return Finding(inside, " ".join(bounds), f"now {instant(now).isoformat(timespec='seconds')}")


def narrowed(leaf: Erc721, named: frozenset[int]) -> Erc721 | None:
    """The leaf over the tokens that the viewer names, of those that it accepts; None when that cannot be enough."""
    ids = tuple(sorted(token for token in named if not leaf.token_ids or token in leaf.token_ids))
    return replace(leaf, token_ids=ids) if len(ids) >= leaf.minimum else None


def contract_of(leaf: Holding) -> bytes | None:
    """The contract that a leaf names, 20 bytes; None for the chain's own coin."""
    return None if isinstance(leaf, Native) else bytes.fromhex(leaf.contract[2:])


def reads_of(leaf: Holding, wallet: str) -> tuple[Read, ...]:
    """What has to be read of the chain for the leaf, without repetition."""
    if isinstance(leaf, Native):
        return (Balance(bytes.fromhex(wallet[2:])),)
    contract = bytes.fromhex(leaf.contract[2:])
    if isinstance(leaf, Erc1155):
        return (Call(contract, BALANCE_OF_ID + word(wallet) + word(leaf.token_id)),)
    if isinstance(leaf, Erc721) and leaf.token_ids:
        return tuple(Call(contract, OWNER_OF + word(token)) for token in leaf.token_ids)
    return (Call(contract, BALANCE_OF + word(wallet)),)


def held(leaf: Holding, wallet: str, answers: Mapping[Read, Answer], head: Head) -> Finding:
    """What the answers to `reads_of` mean. ``answers`` holds them all; the contract is known to have code."""
    need = need_of(leaf)
    given = [answers[read] for read in reads_of(leaf, wallet)]
    unread = [answer for answer in given if isinstance(answer, Unread)]
    if isinstance(leaf, Erc721) and leaf.token_ids:
        if any(_is_strange(answer) for answer in given):
            return _strange(leaf, head)
        owned = tuple(token for token, answer in zip(leaf.token_ids, given, strict=True) if address(answer) == wallet)
        truth = at_least(leaf.minimum, len(owned), len(unread))
        return Finding(truth, need, unread[0].why if truth is None else f"{len(owned)} of them", head, owned)
    if unread:
        return Finding(None, need, unread[0].why, head)
    number = uint(given[0])
    if number is None:
        return _strange(leaf, head)
    return Finding(number >= leaf.minimum, need, f"{number}", head)


def need_of(leaf: Holding) -> str:
    """What the leaf asks for, for people."""
    if isinstance(leaf, Native):
        return f"at least {leaf.minimum} wei of the coin of {leaf.chain}"
    return f"at least {leaf.minimum}{_which(leaf)} of {leaf.contract}"


def _which(leaf: Erc721 | Erc20 | Erc1155) -> str:
    if isinstance(leaf, Erc1155):
        return f" of token {leaf.token_id}"
    if isinstance(leaf, Erc20) or not leaf.token_ids:
        return ""
    if isinstance(leaf.token_ids, range):
        return f" of {leaf.token_ids[0]} to {leaf.token_ids[-1]}"
    shown = ", ".join(map(str, leaf.token_ids[:SHOWN_IDS]))
    return f" of {shown}{', …' if len(leaf.token_ids) > SHOWN_IDS else ''}"


def _is_strange(answer: Answer) -> bool:
    """`ownerOf` of a token that does not exist reverts (ERC-721); anything else that is no address is not of the standard."""
    return isinstance(answer, Returned) and address(answer) is None


def _strange(leaf: Holding, head: Head) -> Finding:
    """An answer that is not of the standard: a mistake in the policy, and no ground for any answer."""
    if isinstance(leaf, Native):
        return Finding(None, need_of(leaf), "the node does not answer with a balance", head)
    standard = {Erc721: "ERC-721", Erc20: "ERC-20", Erc1155: "ERC-1155"}[type(leaf)]
    return Finding(None, need_of(leaf), f"the contract does not answer as {standard}", head)
