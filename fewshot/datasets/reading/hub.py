"""The Hugging Face hub: without a network nobody waits for it."""

import os
import socket
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from fewshot.extras import require


def kept_alone(place: str | os.PathLike[str]) -> bool:
    """Whether a model can be had from the cache alone, as nothing here knows where the hub is.

    Its client would ask again and again for half a minute, and say so in a dozen lines. Where a
    proxy asks in our place, nobody can tell.
    """
    if os.path.isdir(place) or getproxies():
        return False
    hub = urlsplit(require("huggingface_hub", "text").constants.ENDPOINT)
    try:
        socket.getaddrinfo(hub.hostname, hub.port or 443)
    except OSError:
        return True
    return False


def in_cache(model: str | None, file: str) -> Path | None:
    """A file of a model of the hub, where it was fetched before; None where it was not."""
    if model is None:
        return None
    found = require("huggingface_hub", "pretrained").try_to_load_from_cache(model, file)
    return Path(found) if isinstance(found, str) else None
