"""Shows how much memory a small file can cost the service.

    python course/breaks/picture_bomb.py

A picture bomb is a small file with a huge picture. The script writes one row of black pixels after the other as PNG, so
it needs no memory for the picture itself. The picture is as large as Pillow accepts: it only warns.
"""

import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import psutil

from course_client import URL, get, predict, shown

SIDE = 13_000


def png(side: int) -> bytes:
    """Return a black PNG file, one bit per pixel."""
    pack = zlib.compressobj(9)
    row = bytes(1 + (side + 7) // 8)
    pixels = b"".join(pack.compress(row) for _ in range(side)) + pack.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
    parts = (struct.pack(">I", len(b)) + a + b + struct.pack(">I", zlib.crc32(a + b)) for a, b in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def server() -> psutil.Process:
    """Return the process that listens on the service's port."""
    port = int(URL.rpartition(":")[2])
    for process in psutil.process_iter():
        try:
            connections = process.net_connections("tcp")
        except psutil.Error:  # another user's process
            continue
        if any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in connections):
            return process
    raise SystemExit(f"no process of this user listens on port {port}")


def main() -> None:
    get("/openapi.json")
    process = server()
    bomb = png(SIDE)
    before = most = process.memory_info().rss
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(predict, bomb)
        while not sent.done():
            most = max(most, process.memory_info().rss)
            time.sleep(0.002)
    print(f"{SIDE} x {SIDE} pixels in {len(bomb) // 1000} KB: memory +{(most - before) // 1_000_000} MB")
    print(f"  {shown(sent.result())}")


if __name__ == "__main__":
    main()
