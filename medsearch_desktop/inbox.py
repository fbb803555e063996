"""Messages that others send, into a folder that is ingested like any other."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from medsearch_desktop.config import Config
from medsearch_desktop.source.mllp import Listener, OnMessage, Spool


async def listen(
    config: Config,
    folder: Path,
    *,
    host: str,
    port: int,
    allowed: Iterable[str],
    on_ready: Callable[[int], None],
    on_message: OnMessage,
) -> None:
    """Take HL7 results over MLLP into `folder` until cancelled; `on_ready` is told the port.

    A message may have `max_feed_bytes` of the settings. Raises SourceError for a folder, an address or a
    port that cannot be used.
    """
    listener = Listener(Spool(folder), allowed=allowed, max_bytes=config.max_feed_bytes, on_message=on_message)
    on_ready(await listener.begin(host=host, port=port))
    await listener.run()
