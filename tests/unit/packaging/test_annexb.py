"""Units and frames of a transport stream: what is put in comes out, and what is none is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgate.packaging import annexb

unit = st.binary(min_size=2, max_size=60).map(lambda data: b"\x65" + data.replace(b"\0", b"\1"))
starts = st.sampled_from([b"\0\0\1", b"\0\0\0\1", b"\0\0\0\0\0\1"])


@given(st.lists(st.tuples(starts, unit), max_size=8))
def test_units_are_those_between_start_codes(parts: list[tuple[bytes, bytes]]) -> None:
    data = b"".join(start + found for start, found in parts)
    assert annexb.units(data) == [found for _, found in parts]
    sample = annexb.sample(data, "h264", frozenset())
    assert sample == b"".join(len(found).to_bytes(4, "big") + found for _, found in parts)


def test_parameter_sets_and_delimiters_are_left_out_and_strange_ones_refused() -> None:
    known = b"\x67\x64\x00\x1f\xac"
    data = b"\0\0\1\x09\xf0" + b"\0\0\0\1" + known + b"\0\0\1\x65picture"
    assert annexb.sample(data, "h264", frozenset([known])) == b"\0\0\0\x08\x65picture"
    with pytest.raises(ValueError, match="another parameter set"):
        annexb.sample(data, "h264", frozenset())


@given(st.binary(max_size=80), st.sampled_from(["h264", "hevc"]))
def test_noise_is_no_record_and_no_frame(data: bytes, codec: str) -> None:
    for make in (lambda: annexb.record(annexb.units(data), codec), lambda: annexb.aac(data)):
        try:
            made = make()
        except ValueError:
            continue
        assert made


@given(st.binary(max_size=500), st.sampled_from([96000, 48000, 44100, 8000]), st.integers(1, 7), st.booleans())
def test_a_frame_of_sound_comes_out_with_its_configuration(
    payload: bytes, rate: int, channels: int, checked: bool
) -> None:
    index = [96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000].index(rate)
    length = len(payload) + (9 if checked else 7)
    bits = 0xFFF << 44 | (not checked) << 40 | 1 << 38 | index << 34 | channels << 30 | length << 13 | 0x7FF << 2
    frame = bits.to_bytes(7, "big") + (b"\0\0" if checked else b"") + payload
    if length < 9:
        return
    config, found = annexb.aac(frame)
    assert found == payload
    assert (config[0] >> 3, (config[0] & 7) << 1 | config[1] >> 7, config[1] >> 3 & 15) == (2, index, channels)
