"""Accounts and the wallets behind them. An EOA is one person on every EVM chain: ``eip155:1:0x<lower case>``."""

from __future__ import annotations

import re

ANYBODY = "*"
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}\Z")
_CAIP10 = re.compile(r"([-a-z0-9]{3,8}):([-_a-zA-Z0-9]{1,32}):([-.%a-zA-Z0-9]{1,128})\Z")


def wallet_of(text: str) -> str:
    """The EVM address of an address or CAIP-10 account, in lower case; `ValueError` for anything else."""
    match = _CAIP10.match(text)
    if match is not None and match[1] != "eip155":
        raise ValueError(f"accounts of {match[1]} chains are not supported; use an EVM address")
    address = match[3] if match else text
    if not _ADDRESS.match(address):
        raise ValueError("it must be an address (0x and 40 hexadecimal digits) or a CAIP-10 account of an EVM chain")
    return address.lower()


def account_of(address: str) -> str:
    """The account of an EOA."""
    return f"eip155:1:{address.lower()}"


def chain_id_of(account: str) -> int:
    """The chain id of a CAIP-10 account of an EVM chain; `ValueError` for anything else."""
    match = _CAIP10.match(account)
    if match is None or match[1] != "eip155" or not re.match(r"[1-9][0-9]{0,15}\Z", match[2]):
        raise ValueError("it must be a CAIP-10 account of an EVM chain, such as eip155:1:0x…")
    return int(match[2])
