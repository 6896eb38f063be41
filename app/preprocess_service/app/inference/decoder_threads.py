"""Decodes small JPEGs in threads, which is faster than in processes. Nothing can interrupt a thread."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from preprocess_service.app.config import Config
from preprocess_service.app.errors import ServiceError
from preprocess_service.app.imaging.decode_cost import first_scan
from preprocess_service.app.imaging.resize import resize
from preprocess_service.app.inference.context import RequestContext
from preprocess_service.app.recipe import Geometry
from preprocess_service.app.utils import Header, Photo, Prepared, Size, decode_base64, decode_open, open_image
from serving_common.cpu_quota import usable_cores

# The limits of a JPEG that is decoded in a thread. Such a JPEG takes a few
# milliseconds, or a few tens if its file is hostile. All other JPEGs, and other formats, are decoded in a process.
SMALL_BYTES = 100_000
_SMALL_PIXELS = 500_000
# A long picture that is only 7 pixels wide takes much memory to resize.
_SMALL_SIDE = 8_000
# Pillow copies each EXIF entry, and entries may overlap. With this many bytes before the pixels, the copies take about
# 20 MB at most.
_SMALL_METADATA_BYTES = 16_000
_JPEG = b"\xff\xd8\xff"
# The first bytes of a JPEG in base64. The prefix of a data: URL may come before them.
_JPEG_BASE64 = "/9j/"
_PREFIX_CHARACTERS = 100


class DecoderThreads:
    """A pool with one thread for each core, so that the event loop never waits for Pillow."""

    def __init__(self, config: Config) -> None:
        self._max_pixels = config.limits.pixels
        self._threads = ThreadPoolExecutor(config.limits.decode_threads or usable_cores(), "decode")

    def close(self) -> None:
        """Start no further photo."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def decode(
        self, photo: Photo, context: RequestContext, geometry: Geometry, on_start: Callable[[], None]
    ) -> Prepared | None:
        """Decode and resize a photo. None: it is no small JPEG, so a process must decode it.

        Args:
            on_start: called when a thread is free for the photo.

        Raises:
            ServiceError: the picture is rejected.
        """
        if not _may_be_small_jpeg(photo):
            return None
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, self._prepare, photo, context, geometry, on_start)
        except asyncio.CancelledError:
            # A thread that has started can't be stopped. It checks for this before each costly stage.
            context.cancel()
            raise

    def _prepare(
        self, photo: Photo, context: RequestContext, geometry: Geometry, on_start: Callable[[], None]
    ) -> Prepared | None:
        """Return the pixels of a photo, or None if its header shows that it is not small."""
        on_start()
        try:
            return self._pixels(photo, context, geometry)
        except ServiceError as exc:
            # The traceback would keep the picture in memory, and all frames that the exception passes through.
            exc.__context__ = None
            raise exc.with_traceback(None) from None

    def _pixels(self, photo: Photo, context: RequestContext, geometry: Geometry) -> Prepared | None:
        # The deadline may have passed, or the client disconnected, while the photo waited for a thread.
        context.remaining()
        with context.stage("decode"):
            decoded = self._decoded(decode_base64(photo) if isinstance(photo, str) else photo, context, geometry)
        if decoded is None:
            return None
        context.remaining()
        image, size = decoded
        with context.stage("resize"):
            return Prepared(resize(image, geometry), size)

    def _decoded(self, data: bytes, context: RequestContext, geometry: Geometry) -> tuple[Image.Image, Size] | None:
        # A separate function, so that the whole picture is freed at its end, before the next step needs memory.
        if not (data.startswith(_JPEG) and 0 < first_scan(data) < _SMALL_METADATA_BYTES):
            return None
        headers: list[Header] = []
        try:
            with open_image(data, self._max_pixels, geometry, headers.append) as opened:
                size = (headers[0].width, headers[0].height)
                if not opened.one_scan or size[0] * size[1] > _SMALL_PIXELS or max(size) > _SMALL_SIDE:
                    headers.clear()
                    return None
                return decode_open(opened, geometry)
        finally:
            context.images += [(header.format, header.width, header.height) for header in headers]


def _may_be_small_jpeg(photo: Photo) -> bool:
    if isinstance(photo, str):
        return len(photo) * 3 <= SMALL_BYTES * 4 and _JPEG_BASE64 in photo[:_PREFIX_CHARACTERS]
    return len(photo) <= SMALL_BYTES and photo.startswith(_JPEG)
