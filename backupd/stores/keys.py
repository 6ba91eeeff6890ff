"""What may be a key: a relative POSIX path that every store can hold."""

from __future__ import annotations

from backupd.errors import StoreError


def is_key(text: str) -> bool:
    """Whether `text` is a key: no empty, `.` or `..` part, no control character, encodable as UTF-8."""
    if any(ord(char) < 0x20 or char == "\x7f" or "\ud800" <= char <= "\udfff" for char in text):
        return False
    return all(part not in {"", ".", ".."} for part in text.split("/"))


def check_key(text: str) -> str:
    """`text`, if it is a key; StoreError otherwise."""
    if not is_key(text):
        raise StoreError(f"not a key: {text!r}", hint="keys are relative paths without empty, '.' or '..' parts")
    return text


def check_range(offset: int, length: int | None) -> None:
    """ValueError for a range that no object can have."""
    if offset < 0 or (length is not None and length < 0):
        raise ValueError(f"not a range: offset {offset}, length {length}")
