"""From decoded pictures to the pictures of one rendition: upright, square pixels, progressive, 8-bit BT.709, its size."""

from __future__ import annotations

from av.filter import Graph
from av.filter.context import FilterContext
from av.video.frame import VideoFrame

from streamgate.media.recipe import VideoRecipe

_TURNS: dict[int, list[tuple[str, str | None]]] = {
    0: [],
    90: [("transpose", "clock")],
    180: [("hflip", None), ("vflip", None)],
    270: [("transpose", "cclock")],
}
_END = (BlockingIOError, EOFError)


class PictureChain:
    """The filters of one rendition. Pictures come out in order, one for one, possibly later (deinterlacing looks ahead)."""

    def __init__(self, recipe: VideoRecipe, width: int, height: int, pix_fmt: str = "yuv420p") -> None:
        self._recipe = recipe
        self._size = (width, height)
        self._pix_fmt = pix_fmt
        self._shape: tuple[object, ...] | None = None
        self._graph: Graph | None = None

    def push(self, frame: VideoFrame) -> list[VideoFrame]:
        """Give one picture; those that are ready. A source that changes its shape in the middle is followed."""
        shape = (frame.width, frame.height, frame.format.name, frame.colorspace, frame.color_range)
        ready: list[VideoFrame] = []
        if self._graph is None or shape != self._shape:
            ready = self.flush()
            self._graph, self._shape = self._build(frame), shape
        self._graph.vpush(frame)
        return ready + self._pull()

    def flush(self) -> list[VideoFrame]:
        """No further picture comes: those that were held back."""
        if self._graph is None:
            return []
        self._graph.vpush(None)
        ready = self._pull()
        self._graph = None
        return ready

    def _pull(self) -> list[VideoFrame]:
        ready: list[VideoFrame] = []
        assert self._graph is not None
        while True:
            try:
                ready.append(self._graph.vpull())
            except _END:
                return ready

    def _build(self, frame: VideoFrame) -> Graph:
        graph = Graph()
        graph.threads = 1
        # Made by hand: the library's own way to add a source drops colour and pixel aspect.
        chain: list[FilterContext] = [
            graph.add(
                "buffer",
                f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}:time_base=1/{self._recipe.timescale}"
                f":pixel_aspect=1/1:colorspace={int(frame.colorspace)}:range={int(frame.color_range)}",
            )
        ]
        chain += [graph.add(name, arguments) for name, arguments in self._filters(frame)]
        chain.append(graph.add("buffersink"))
        graph.link_nodes(*chain).configure(auto_buffer=False)
        return graph

    def _filters(self, frame: VideoFrame) -> list[tuple[str, str | None]]:
        recipe, (width, height) = self._recipe, self._size
        filters: list[tuple[str, str | None]] = []
        if recipe.interlaced:
            filters.append(("bwdif", "mode=send_frame:deint=interlaced"))
        if recipe.turn in (90, 270):
            width, height = height, width
        colour = "out_color_matrix=bt709:out_range=limited"
        if not frame.format.is_rgb:
            colour += f":in_color_matrix={recipe.matrix}"
        if recipe.wide:
            colour += ":out_primaries=bt709:out_transfer=bt709"
        filters.append(("scale", f"w={width}:h={height}:flags=bicubic:{colour}"))
        # Turned last, when the picture is small.
        filters.append(("format", self._pix_fmt))
        filters += _TURNS[recipe.turn]
        if recipe.mirror:
            filters.append(("hflip", None))
        filters.append(("setsar", "1"))
        return filters
