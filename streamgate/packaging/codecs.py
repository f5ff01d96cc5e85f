"""Codec strings for playlists (RFC 6381), read from the decoder configuration records of a track."""

from __future__ import annotations


def avc_codec(avcc: bytes) -> str:
    """``avc1.PPCCLL`` of an AVCDecoderConfigurationRecord (ISO/IEC 14496-15, 5.3.3.1); `ValueError` for anything else."""
    if len(avcc) < 7 or avcc[0] != 1:
        raise ValueError("not an AVC decoder configuration record")
    return f"avc1.{avcc[1:4].hex().upper()}"


def aac_codec(config: bytes) -> str:
    """``mp4a.40.N`` of an AudioSpecificConfig (ISO/IEC 14496-3, 1.6.2.1); `ValueError` for anything else."""
    if len(config) < 2:
        raise ValueError("not an AudioSpecificConfig")
    object_type = config[0] >> 3
    if object_type == 31:
        object_type = 32 + ((config[0] & 7) << 3 | config[1] >> 5)
    if object_type == 0:
        raise ValueError("not an AudioSpecificConfig")
    return f"mp4a.40.{object_type}"
