"""Writers: one metering process instance each."""

import secrets

from .core.keys import WRITER_ID_LENGTH


def new_writer_id() -> str:
    """A random writer id: ``w`` and ten URL-safe characters (60 bits)."""
    return "w" + secrets.token_urlsafe(8)[: WRITER_ID_LENGTH - 1]
