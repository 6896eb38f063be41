"""Gives back to the system, a few seconds after a burst of work, the memory that only the burst needed."""

import asyncio
import time

from model_service.engines import openvino as openvino_engine
from model_service.prediction.message_memory import MessageMemory
from serving_common.malloc import trim_malloc

_LOOK_S = 1.0
# How long after a burst its memory is kept for the next one.
_KEPT_S = 5.0
# What the C library keeps of smaller ones is less than what it costs to give it back.
_BURST_BYTES = 4 << 20


async def release_unused_memory(messages: MessageMemory) -> None:
    """Look once a second, until cancelled. The work is done in a thread: it takes milliseconds."""
    burst_at: float | None = None
    while True:
        await asyncio.sleep(_LOOK_S)
        if messages.peak() > _BURST_BYTES:
            burst_at = time.monotonic()
        has_released = await asyncio.to_thread(openvino_engine.release_memory)
        if has_released or (burst_at is not None and time.monotonic() - burst_at > _KEPT_S):
            burst_at = None
            await asyncio.to_thread(trim_malloc)
