"""What can be configured of the gateway."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class GatewaySettings(BaseModel):
    """Section ``api_gateway``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    docs: bool = Field(True, description="Whether `/docs` shows the API's documentation.")
    preflight_max_age_s: int = Field(
        600, ge=0, le=86400, description="Seconds that a browser may keep a CORS preflight."
    )
    requests_per_s: float = Field(
        100.0, gt=0, le=100_000, description="API requests a second that one account or API key may make for long."
    )
    requests_burst: int = Field(
        1000, ge=1, le=1_000_000, description="API requests that one account or API key may make at once."
    )
    anonymous_per_s: float = Field(
        20.0, gt=0, le=100_000, description="API requests a second from one address without a credential, for long."
    )
    anonymous_burst: int = Field(
        400, ge=1, le=1_000_000, description="API requests from one address without a credential, at once."
    )
    sign_in_per_s: float = Field(
        2.0,
        gt=0,
        le=100_000,
        description="Sign-ins, refreshes and refused credentials a second from one address, for long; a sign-in takes two.",
    )
    sign_in_burst: int = Field(
        120, ge=1, le=1_000_000, description="Sign-ins, refreshes and refused credentials from one address, at once."
    )
    connect_timeout_s: float = Field(
        2.0, gt=0, le=60, description="Seconds that a replica of a service has to take a connection."
    )
    answer_timeout_s: float = Field(
        30.0,
        gt=0,
        le=600,
        description="Seconds that a service may be silent before its answer begins; more than `streaming.segment_wait_s`.",
    )
    silence_timeout_s: float = Field(
        60.0, gt=0, le=600, description="Seconds that a service may be silent in the middle of its answer."
    )
