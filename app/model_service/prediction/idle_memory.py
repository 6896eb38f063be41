"""Returns memory to the system a few seconds after a burst of work."""

import asyncio
import time

from model_service.engines import openvino as openvino_engine
from model_service.prediction.message_memory import MessageMemory
from serving_common.malloc import trim_malloc

_CHECK_S = 1.0
# How long the memory of a burst is kept for the next one.
_KEPT_S = 5.0
# Below this, trimming costs more than the memory that it returns.
_BURST_BYTES = 4 << 20


async def release_unused_memory(messages: MessageMemory) -> None:
    """Check once a second, until cancelled. It frees the memory in a thread, because that takes milliseconds."""
    burst_at: float | None = None
    while True:
        await asyncio.sleep(_CHECK_S)
        if messages.peak() > _BURST_BYTES:
            burst_at = time.monotonic()
        has_released = await asyncio.to_thread(openvino_engine.release_memory)
        if has_released or (burst_at is not None and time.monotonic() - burst_at > _KEPT_S):
            burst_at = None
            await asyncio.to_thread(trim_malloc)
