"""What can be configured of the worker."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class WorkerSettings(BaseModel):
    """Section ``worker``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sweep_interval_s: float = Field(
        3600, ge=1, le=86_400, description="Seconds from one clean-up of finished jobs and delivered facts to the next."
    )
    database_interval_s: float = Field(
        6 * 3600,
        ge=1,
        le=30 * 86_400,
        description="Seconds from one upkeep of the database (statistics, write-ahead log) to the next.",
    )
    job_retention_s: float = Field(
        7 * 86_400,
        ge=0,
        description="Seconds that done and canceled jobs are kept; failed ones stay until they are run again.",
    )
    fact_retention_s: float = Field(
        2 * 86_400, ge=3600, description="Seconds that delivered facts, and what was done about them, are remembered."
    )
    late_after_s: float = Field(
        600,
        gt=0,
        description="Age in seconds of the oldest runnable job, or undelivered fact, from which health is degraded.",
    )
