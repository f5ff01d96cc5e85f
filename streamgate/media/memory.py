"""Memory of a child that reads an index: what it frees it uses again."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8
_LARGEST = 32 << 20
"""The largest threshold that the library takes."""

_PAD = 16 << 20
_NEVER = 1 << 30


def reuse() -> None:
    """Give nothing that is freed back to the system (mallopt(3)), before there is a second thread.

    Arrays of an index are megabytes long and short-lived. As they come each is memory of its own, which the kernel clears and takes
    back: that takes as long as what is done with them. Other C libraries than glibc are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for what, value in (
            (_M_ARENA_MAX, 1),
            (_M_MMAP_THRESHOLD, _LARGEST),
            (_M_TRIM_THRESHOLD, _NEVER),
            (_M_TOP_PAD, _PAD),
        ):
            mallopt(what, value)
