"""What can be configured of playback."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class StreamingSettings(BaseModel):
    """Section ``streaming``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    idle_s: float = Field(
        90.0, gt=0, le=3600, description="Seconds without a request after which a session counts as idle."
    )
    max_streams: int = Field(
        10,
        ge=0,
        le=10_000,
        description="Streams that one account may have at a time, of films that are not its own; 0: any number.",
    )
    session_min_s: int = Field(
        6 * 3600, ge=60, le=24 * 3600, description="A playback URL lives at least this long, or three times the film."
    )
    session_max_s: int = Field(
        24 * 3600, ge=60, le=7 * 24 * 3600, description="A playback URL lives at most this long."
    )
    ttl_s: float = Field(
        30.0,
        gt=0,
        le=600,
        description="Seconds that owner, administrator and public sessions are served between two looks.",
    )
    segment_wait_s: float = Field(
        9.0, gt=0, le=60, description="Seconds that a request waits for a segment that is not encoded yet."
    )
    playback_keys_file: Path | None = Field(
        None,
        description="File of playback token keys, lines `<kid 0-255> <64 hex digits>`, the first signs; default: made at start.",
    )
