"""What the metadata of an upload says."""

from __future__ import annotations

from streamgate.contracts.metadata import NewAsset
from streamgate.domain.asset import Visibility
from streamgate.domain.errors import ValidationFailed


def short(text: str | None) -> str | None:
    """At most 255 characters of it; None for nothing."""
    return text[:255] if text else None


def new_asset(described: dict[str, str]) -> NewAsset:
    """What the metadata of an upload says of its film."""
    name = described.get("filename") or described.get("name") or ""
    title = described.get("title") or name.rpartition(".")[0] or name or "Untitled"
    visibility = described.get("visibility", Visibility.PRIVATE.value)
    if visibility not in {v.value for v in Visibility}:
        raise ValidationFailed("visibility must be private, gated or public.").at("Upload-Metadata")
    return NewAsset(title=title[:200], visibility=Visibility(visibility), policy_id=described.get("policy_id") or None)
