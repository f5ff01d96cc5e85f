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
