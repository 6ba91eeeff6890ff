"""Words, log lines and database pages: made up, always the same, and about as redundant as real ones."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from random import Random

PAGE = 8192
_SYLLABLES = (
    *("ba", "ce", "di", "fo", "gu", "la", "me", "ni", "ro", "su", "ta", "ve", "xi", "zo"),
    *("an", "er", "in", "or", "un", "est", "ion", "ment", "al"),
)
_SERVICES = ("backend", "frontend", "worker", "postgres", "redis", "nginx")
_ROUTES = ("/api/trips", "/api/trips/{}/photos", "/api/users/{}", "/auth/refresh", "/health", "/static/{}.js")
_MESSAGES = ("request completed", "cache miss", "query took longer than expected", "token refreshed", "job enqueued")


class Writer:
    """Makes text with the word frequencies of a natural language (Zipf's law over 20,000 words)."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        words = ["".join(rng.choices(_SYLLABLES, k=rng.randint(1, 4))) for _ in range(20_000)]
        self._urn = [word for rank, word in enumerate(words, 1) for _ in range(len(words) // rank)]

    def words(self, count: int) -> list[str]:
        """So many words."""
        return self.rng.choices(self._urn, k=count)

    def text(self, size: int) -> bytes:
        """`size` bytes of prose, in lines of a dozen words."""
        lines: list[str] = []
        while size > 0:
            words = self.words(6000)
            lines += (" ".join(words[start : start + 12]) + ".\n" for start in range(0, len(words), 12))
            size -= sum(map(len, lines[-500:]))
        return "".join(lines)[: size or None].encode()

    def log(self, size: int, moment: float) -> Iterator[bytes]:
        """`size` bytes of JSON log lines, a mebibyte or so at a time."""
        rng = self.rng
        while size > 0:
            lines = []
            for _ in range(4000):
                moment += rng.expovariate(20)
                route = rng.choice(_ROUTES).format(rng.getrandbits(14))
                line = {
                    "ts": round(moment, 6),
                    "level": "INFO" if rng.random() < 0.95 else "WARNING",
                    "service": rng.choice(_SERVICES),
                    "request_id": f"{rng.getrandbits(64):016x}",
                    "method": "GET" if rng.random() < 0.8 else "POST",
                    "path": route,
                    "status": 200 if rng.random() < 0.97 else 404,
                    "duration_ms": round(rng.expovariate(0.05), 2),
                    "user": rng.getrandbits(12),
                    "message": rng.choice(_MESSAGES),
                }
                lines.append(json.dumps(line))
            block = ("\n".join(lines) + "\n").encode()[:size]
            size -= len(block)
            yield block

    def pages(self, count: int, first_row: int) -> Iterator[bytes]:
        """Pages as PostgreSQL lays them out: header, line pointers, free space, then rows from the end backwards."""
        rng = self.rng
        row = first_row
        for _ in range(count):
            words = self.words(700)
            upper = PAGE
            pointers: list[int] = []
            rows: list[bytes] = []
            while True:
                text = " ".join(words[14 * len(rows) : 14 * len(rows) + rng.randint(6, 14)]).encode()
                place = (row >> 16 & 0xFFFF, row & 0xFFFF)
                head = struct.pack("<IIIHHHHBB2x", 700 + row // 50, 0, 0, *place, 6, 2306, 24, 0)
                body = struct.pack("<q16sqib", row, rng.randbytes(16), 8_000_000_000 + row * 977, rng.getrandbits(8), 3)
                data = (head + body + text).ljust(len(head + body + text) + 7 & ~7, b"\0")
                if upper - len(data) < 24 + 4 * (len(rows) + 1):
                    break
                upper -= len(data)
                pointers.append(upper | 1 << 15 | len(data) << 17)
                rows.append(data)
                row += 1
            lower = 24 + 4 * len(pointers)
            page = struct.pack("<QHHHHHHI", row * 211, rng.getrandbits(16), 4, lower, upper, PAGE, PAGE | 4, 0)
            yield (page + struct.pack(f"<{len(pointers)}I", *pointers)).ljust(upper, b"\0") + b"".join(reversed(rows))
