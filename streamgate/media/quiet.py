"""Keeps the media library from writing to standard error: what it says is about a stranger's file, not for our log."""

from __future__ import annotations

import av.logging


def silence() -> None:
    """No log line of libav or an encoder is printed any more in this process."""
    av.logging.set_libav_level(av.logging.PANIC)
    av.logging.set_level(None)
