"""What can be configured of uploads."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class UploadSettings(BaseModel):
    """Section ``upload``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_size: int = Field(1 << 40, ge=1, description="Largest film in bytes.")
    quota_bytes: int | None = Field(
        None, ge=1, description="Bytes that one account may have stored and announced; default: no limit."
    )
    reserve_bytes: int = Field(1 << 30, ge=0, description="Free space that uploads must leave on the disk, in bytes.")
    expires_s: int = Field(
        24 * 3600,
        ge=1,
        le=365 * 24 * 3600,
        description="Seconds that an unfinished upload is kept after its last byte.",
    )
    idle_s: float = Field(60.0, gt=0, le=600, description="Seconds without a byte after which a request is given up.")
    sweep_s: float = Field(300.0, gt=0, le=86400, description="Seconds between two sweeps of what has expired.")
