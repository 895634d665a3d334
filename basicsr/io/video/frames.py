"""Frames of videos as upright RGB images, and back, by the colour matrix and range of the video."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from av import VideoFrame

_SCALING = 0x4 | 0x2000 | 0x4000 | 0x40000 | 0x80000
"""Flags of swscale: bicubic, full chroma resolution on both sides, accurate rounding, bit-exact."""
_WHITE_16 = 65280
"""Level of swscale's 16-bit RGB for white: 255 in the upper byte, and 0 in the lower."""
BT709, _BT601, _BT2020 = 1, 5, 9
"""Codes of colour matrices in ITU-T H.273."""
_OTHER_MATRICES = {6: _BT601, 10: _BT2020}
_SWSCALE_MATRICES = frozenset({BT709, 4, _BT601, 7, _BT2020})


class Orientation(NamedTuple):
    """How stored frames are shown: exchanged axes first, then mirrored ones.

    `matrix` is the display matrix of the file, nine numbers, or None.
    """

    matrix: tuple[int, ...] | None = None
    transposed: bool = False
    mirrored_y: bool = False
    mirrored_x: bool = False

    def upright(self, image: np.ndarray) -> np.ndarray:
        """Turn a stored H x W x C image upright."""
        if self.transposed:
            image = image.swapaxes(0, 1)
        return np.ascontiguousarray(self._mirrored(image))

    def stored(self, image: np.ndarray) -> np.ndarray:
        """Invert `upright`."""
        image = self._mirrored(image)
        return image.swapaxes(0, 1) if self.transposed else image

    def _mirrored(self, image: np.ndarray) -> np.ndarray:
        return image[:: -1 if self.mirrored_y else 1, :: -1 if self.mirrored_x else 1]


def orientation_of(frame: VideoFrame) -> Orientation:
    """Return the orientation of a decoded frame; only turns by 90 degrees and mirrors are undone.

    The display matrix [[a, b, u], [c, d, v], [x, y, w]] maps a stored position to the shown one.
    """
    data = side_data(frame).get("DISPLAYMATRIX")
    if data is None:
        return Orientation()
    matrix = tuple(int(each) for each in np.frombuffer(data, np.int32)[:9])
    a, b, _, c, d = matrix[:5]
    if a == d == 0 and b and c:
        return Orientation(matrix, True, mirrored_y=b < 0, mirrored_x=c < 0)
    if b == c == 0 and a and d:
        return Orientation(matrix, False, mirrored_y=d < 0, mirrored_x=a < 0)
    return Orientation(matrix)


def side_data(frame: VideoFrame) -> dict[str, bytes]:
    """Return the side data of a frame by ffmpeg's name, without AV_FRAME_DATA_."""
    found: Any = frame.side_data  # PyAV iterates over the data, though its stubs say names
    return {data.type.name: bytes(data) for data in found if hasattr(data.type, "name")}


def bits_of(frame: VideoFrame) -> int:
    """Return the bits per channel of a frame; 8 at least."""
    return max(8, *(component.bits for component in frame.format.components))


def has_alpha(frame: VideoFrame) -> bool:
    return any(component.is_alpha for component in frame.format.components)


class FrameColours:
    """Conversion between the frames of a video and RGB, by the video's own matrix and range.

    Frames of another size, which a video may have in its middle, are scaled to that of the first.

    Args:
        first: first frame of the video.

    Attributes:
        dtype: uint8, or uint16 for more than 8 bits.
        matrix: code of the colour matrix in H.273. An unspecified one is BT.709 for high
            definition, as players assume, and else BT.601.
    """

    def __init__(self, first: VideoFrame) -> None:
        from av.video.reformatter import VideoReformatter

        self.width, self.height = first.width, first.height
        self.dtype: type[np.unsignedinteger[Any]] = np.uint8 if bits_of(first) == 8 else np.uint16
        self.channels = 4 if has_alpha(first) else 3
        self.format = {
            (np.uint8, 3): "rgb24",
            (np.uint8, 4): "rgba",
            (np.uint16, 3): "rgb48le",
            (np.uint16, 4): "rgba64le",
        }[self.dtype, self.channels]
        self.matrix = _OTHER_MATRICES.get(first.colorspace, first.colorspace)
        if first.format.is_rgb or self.matrix not in _SWSCALE_MATRICES:
            is_high = first.format.is_rgb or first.height > 576 or first.width > 1024
            self.matrix = BT709 if is_high else _BT601
        self._reader, self._writer = VideoReformatter(), VideoReformatter()

    def rgb(self, frame: VideoFrame, height: int = 0, width: int = 0) -> VideoFrame:
        """Convert a frame to a new one in RGB or RGBA, which keeps its time and side data."""
        if not frame.format.is_rgb:
            frame.colorspace = self.matrix
        converted = self._reader.reformat(
            frame,
            width=width or self.width,
            height=height or self.height,
            format=self.format,
            interpolation=_SCALING,
        )
        if converted is frame:  # RGB already, and perhaps still needed by the decoder
            converted.make_writable()
        return converted

    def pixels(self, rgb: VideoFrame) -> np.ndarray:
        """Return a copy of the H x W x 3 colours of a frame in RGB."""
        pixels = np.array(self._rows(rgb)).reshape(rgb.height, rgb.width, self.channels)[..., :3]
        return pixels if self.dtype == np.uint8 else _scaled(pixels, 65535 / _WHITE_16)

    def fill(self, rgb: VideoFrame, colours: np.ndarray) -> None:
        """Replace the colours of a frame in RGB by H x W x 3; transparency stays."""
        if self.dtype != np.uint8:
            colours = _scaled(colours, _WHITE_16 / 65535)
        rows = self._rows(rgb)
        for channel in range(3):
            rows[:, channel :: self.channels] = colours[..., channel]

    def coded(self, rgb: VideoFrame, pix_fmt: str, color_range: int) -> VideoFrame:
        """Convert a frame in RGB to the format of an encoder."""
        rgb.colorspace = self.matrix
        return self._writer.reformat(
            rgb,
            format=pix_fmt,
            interpolation=_SCALING,
            dst_colorspace=self.matrix,
            dst_color_range=color_range,
        )

    def _rows(self, rgb: VideoFrame) -> np.ndarray:
        """Return a view of the levels of a frame in RGB, a row for each of its rows."""
        plane: Any = rgb.planes[0]  # a buffer, which PyAV's stubs do not say
        levels = np.frombuffer(plane, self.dtype)
        rows = levels.reshape(plane.height, plane.line_size // levels.itemsize)
        return rows[:, : rgb.width * self.channels]


def _scaled(levels: np.ndarray, factor: float) -> np.ndarray:
    """Scale 16-bit levels, as swscale's white is not the largest level."""
    return np.minimum(np.rint(levels * np.float32(factor)), 65535).astype(np.uint16)
