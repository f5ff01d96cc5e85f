"""A wallet that signs in, as a person's would."""

from __future__ import annotations

from collections.abc import Mapping

import httpx
from eth_account import Account
from eth_account.messages import encode_defunct


class Wallet:
    """An EOA. ``key`` None: a new one."""

    def __init__(self, key: str | None = None) -> None:
        self._account = Account.from_key(key) if key else Account.create()
        self.address: str = self._account.address

    def sign(self, message: str) -> str:
        """The EIP-191 signature as 0x hex."""
        return "0x" + self._account.sign_message(encode_defunct(text=message)).signature.hex().removeprefix("0x")

    def sign_in(self, url: str, chain_id: int = 1, *, headers: Mapping[str, str] | None = None) -> str:
        """Sign in over HTTP; the access token."""
        with httpx.Client(base_url=url, timeout=30, headers=headers) as http:
            asked = http.post("/api/v1/auth/challenges", json={"address": self.address, "chain_id": chain_id})
            assert asked.status_code == 201, asked.text
            message = asked.json()["message"]
            made = http.post("/api/v1/auth/sessions", json={"message": message, "signature": self.sign(message)})
            assert made.status_code == 201, made.text
            return str(made.json()["access_token"])
