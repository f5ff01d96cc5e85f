"""Languages of tracks as BCP 47 names them (RFC 5646), whatever a container calls them."""

from __future__ import annotations

import re

from langcodes import standardize_tag
from langcodes.tag_parser import LanguageTagError

_TAG = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8}){0,3}\Z")
_UNKNOWN = frozenset({"und", "mis", "mul", "zxx", "qaa", "unk"})


def bcp47(text: str | None) -> str | None:
    """The tag of a language: ``ger`` and ``deu`` are ``de``; None for what says nothing or is no language."""
    if text is None or not _TAG.match(text):
        return None
    try:
        tag = str(standardize_tag(text))
    except (LanguageTagError, ValueError):
        return None
    return None if tag.split("-", maxsplit=1)[0] in _UNKNOWN else tag
