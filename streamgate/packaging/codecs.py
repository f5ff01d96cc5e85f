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


def hevc_codec(hvcc: bytes, entry: str = "hvc1") -> str:
    """``hvc1.…`` of an HEVCDecoderConfigurationRecord (ISO/IEC 14496-15, 8.3.3.1 and annex E); `ValueError` for anything else."""
    if len(hvcc) < 23 or hvcc[0] != 1:
        raise ValueError("not an HEVC decoder configuration record")
    space = ("", "A", "B", "C")[hvcc[1] >> 6]
    tier = "H" if hvcc[1] & 0x20 else "L"
    compatible = int(f"{int.from_bytes(hvcc[2:6], 'big'):032b}"[::-1], 2)
    constraints = hvcc[6:12].rstrip(b"\0")
    parts = [entry, f"{space}{hvcc[1] & 0x1F}", f"{compatible:X}", f"{tier}{hvcc[12]}"]
    return ".".join([*parts, *(f"{byte:X}" for byte in constraints)])


def av1_codec(av1c: bytes) -> str:
    """``av01.P.LLT.DD`` of an AV1CodecConfigurationRecord (AV1 in ISOBMFF, 2.3.3 and 5); `ValueError` for anything else."""
    if len(av1c) < 4 or av1c[0] != 0x81:
        raise ValueError("not an AV1 codec configuration record")
    profile, level = av1c[1] >> 5, av1c[1] & 0x1F
    tier = "H" if av1c[2] & 0x80 else "M"
    depth = 8 if not av1c[2] & 0x40 else 12 if profile == 2 and av1c[2] & 0x20 else 10
    return f"av01.{profile}.{level:02d}{tier}.{depth:02d}"
