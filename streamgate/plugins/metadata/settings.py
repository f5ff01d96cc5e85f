"""What can be configured of the catalog."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class MetadataSettings(BaseModel):
    """Section ``metadata``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_title: int = Field(200, ge=1, le=1000, description="Most characters of a title.")
    max_description: int = Field(10_000, ge=0, le=100_000, description="Most characters of a description.")
