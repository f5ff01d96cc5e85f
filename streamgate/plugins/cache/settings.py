"""What can be configured of the cache service."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class CacheSettings(BaseModel):
    """Section ``cache``, beside what the process is told there of its own cache."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    most_tags: int = Field(100, ge=1, le=10_000, description="Most tags that one purge may name.")
