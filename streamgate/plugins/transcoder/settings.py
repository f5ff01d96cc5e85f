"""What can be configured of encoding."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator


class TranscoderSettings(BaseModel):
    """Section ``transcoder``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    workers: int | None = Field(
        None,
        ge=1,
        le=64,
        description="Chunks encoded at a time beside what viewers wait for; default: a quarter of the cores.",
    )
    rungs: tuple[int, ...] = Field(
        (360, 480, 720, 1080, 1440, 2160),
        description="Short sides of the renditions in pixels; none is above the source.",
    )
    preset: Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow"] = Field(
        "veryfast", description="x264 preset: slower ones spend processor time on smaller files."
    )
    passthrough: bool = Field(
        True, description="Whether video and sound that players take as uploaded are served so, and not encoded."
    )
    segment_s: float = Field(4.0, ge=1, le=10, description="Target length of a segment in seconds.")
    audio_bitrate: int = Field(128_000, ge=32_000, le=320_000, description="Bits per second of stereo sound.")
    max_frame_rate: int = Field(
        60, ge=24, le=120, description="Faster films are thinned to this many frames per second."
    )
    max_duration_s: float = Field(12 * 3600, gt=0, description="Longest film accepted, in seconds.")
    max_pixels: int = Field(8192 * 4352, ge=1 << 16, description="Largest picture accepted, in pixels.")
    plan_timeout_s: float = Field(60.0, gt=0, le=600, description="Seconds that looking at a film may take.")
    cold_days: float | None = Field(
        None,
        gt=0,
        description="Days after which the encoded video of a film that nobody watched is deleted, to be encoded anew when someone "
        "watches; default: never.",
    )
    chunk_timeout_s: float = Field(900.0, gt=0, le=7200, description="Seconds that encoding one chunk may take.")
    grace_s: float = Field(8.0, ge=0, le=60, description="Seconds that encoders may go on when the process stops.")

    @field_validator("rungs")
    @classmethod
    def _are_sizes(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or any(rung % 2 or not 120 <= rung <= 4320 for rung in value) or len(set(value)) != len(value):
            raise ValueError("rungs are different even numbers from 120 to 4320")
        return tuple(sorted(value))
