"""What can be configured of sign-in and policies."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator

from streamgate.plugins.auth.accounts import ANYBODY, wallet_of


class AuthSettings(BaseModel):
    """Section ``auth``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    admins: tuple[str, ...] = Field((), description="Wallets that are administrators (address or CAIP-10 account).")
    creators: tuple[str, ...] = Field((), description="Wallets that may upload; `*`: every wallet that signs in.")
    default_ttl_s: float = Field(
        30.0,
        ge=1,
        le=600,
        description="Seconds that a yes is served on before the chain is read again, where the policy says nothing.",
    )
    challenge_s: int = Field(300, ge=30, le=600, description="Seconds that a sign-in message can be used.")
    access_token_s: int = Field(600, ge=60, le=3600, description="Seconds that an access token lives.")
    session_s: int = Field(
        30 * 24 * 3600, ge=600, le=365 * 24 * 3600, description="Seconds that a session lives after its last refresh."
    )
    admin_key_file: Path | None = Field(
        None, description="File with the administrator key; default: `<data-dir>/admin.key`, made at first start."
    )
    signing_keys_file: Path | None = Field(
        None,
        description="File of access token keys, lines `<kid> <64 hex digits>`, the first signs; default: made at start.",
    )

    @field_validator("admins", "creators")
    @classmethod
    def _are_wallets(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(ANYBODY if entry == ANYBODY else wallet_of(entry) for entry in value)

    @field_validator("admins")
    @classmethod
    def _are_named(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if ANYBODY in value:
            raise ValueError("administrators must be named; * would make everybody one")
        return value
