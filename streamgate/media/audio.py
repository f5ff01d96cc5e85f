"""AAC-LC by chunk: packets of any range of a rendition's grid, that join those of its neighbours without a seam."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from av.audio.codeccontext import AudioCodecContext
from av.codec.context import CodecContext, Flags

from streamgate.media.cuts import AAC_FRAME
from streamgate.media.model import AudioRung, PlannedRendition
from streamgate.media.opening import Source
from streamgate.media.recipe import AudioRecipe
from streamgate.media.sound import GridSamples, audio_frame
from streamgate.media.video import EncoderDiffers
from streamgate.packaging.cmaf import Sample, media_segment

PRE_ROLL = 8
"""Frames encoded and dropped before a range: by then the encoder decides as its neighbour does."""

POST_ROLL = 4
"""Frames of the film encoded after a range, so that its last ones are made with the same look ahead."""


def open_encoder(rung: AudioRung) -> AudioCodecContext:
    """The encoder; its ``extradata`` is an AudioSpecificConfig."""
    encoder = CodecContext.create("aac", "w")
    assert isinstance(encoder, AudioCodecContext)
    encoder.sample_rate = rung.sample_rate
    encoder.layout = "mono" if rung.channels == 1 else "stereo"
    encoder.format = "fltp"
    encoder.bit_rate = rung.bitrate
    encoder.time_base = Fraction(1, rung.sample_rate)
    encoder.flags |= Flags.global_header
    # The other coder carries its decisions on from frame to frame for seconds: a chunk would not sound as the one before it.
    encoder.options = {"aac_coder": "fast"}
    encoder.open()
    return encoder


def configuration(rung: AudioRung) -> bytes:
    """The AudioSpecificConfig of a rung."""
    return bytes(open_encoder(rung).extradata or b"")


def encode_audio(
    source: Source,
    recipe: AudioRecipe,
    zero: Fraction,
    rendition: PlannedRendition,
    numbers: range,
    finished: Callable[[int, bytes], None],
) -> int:
    """Encode consecutive segments and hand each to ``finished(number, bytes)``; how many packets were damaged.

    Raises `EncoderDiffers` when the encoder is not the planned one.
    """
    rung = rendition.rung
    assert isinstance(rung, AudioRung)
    encoder = open_encoder(rung)
    if bytes(encoder.extradata or b"") != rendition.config:
        raise EncoderDiffers(f"{rendition.name}: the encoder's configuration is not the planned one")
    first, last = rendition.boundaries[numbers.start], rendition.boundaries[numbers.stop]
    at = first - PRE_ROLL * AAC_FRAME
    grid = GridSamples(source, recipe, zero, rate=rung.sample_rate, channels=rung.channels, begin=at)
    coded: dict[int, bytes] = {}
    while at < last + POST_ROLL * AAC_FRAME:
        for packet in encoder.encode(audio_frame(grid.read(AAC_FRAME), rung.sample_rate, at)):
            if packet.pts is not None and first <= packet.pts < last:
                coded[packet.pts] = bytes(packet)
        at += AAC_FRAME
    for number in numbers:
        start, end = rendition.boundaries[number : number + 2]
        times = range(start, end, AAC_FRAME)
        if not all(time in coded for time in times):
            raise EncoderDiffers(f"{rendition.name}: segment {number} is not whole")
        samples = [Sample(coded[time], AAC_FRAME) for time in times]
        finished(number, media_segment(number + 1, start, samples))
    return grid.samples.damaged
