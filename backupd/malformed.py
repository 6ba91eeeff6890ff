"""What decoding raises for bytes that are not what they should be, whoever wrote them."""

from __future__ import annotations

import msgspec

MALFORMED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""From msgspec: no JSON or of another shape, text that is not UTF-8, and nesting that no document of ours has.

msgspec decodes text when it comes to it, so bytes that are no UTF-8 are a UnicodeDecodeError and no DecodeError.
"""
