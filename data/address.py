"""The address of a store: what file system it means, and how it is shown to people.

A URL may hold secrets (a password before the `@`, keys and tokens among its parameters); whatever
is shown of it has `…` in their place.
"""

import re
from urllib.parse import unquote

import pyarrow as pa
from pyarrow import fs

from data.access import refusal
from data.errors import StoreError

_USER = re.compile(r"(?<=://)(?:[^?#]*:[^?#]*|[^/?#]*)(?=@)")
_PARAMETER = re.compile(
    r"(?<=[?&])(?P<name>[^=&#]*(?:key|secret|token|passw|credential|sig|sas)[^=&#]*=)"
    r"(?P<value>[^&#]+)",
    re.IGNORECASE,
)


def opened(address: str) -> tuple[fs.FileSystem, str]:
    """The file system and the path that a URL means; StoreError where it cannot be used."""
    try:
        filesystem, root = fs.FileSystem.from_uri(_one_request(address))
    except OSError as error:
        said = OSError(_masked(str(error), address))
        raise refusal(said, f"The store location {shown(address)!r} cannot be used") from None
    except (pa.ArrowException, ValueError, ImportError) as error:
        raise StoreError(
            f"The store location {shown(address)!r} cannot be used: {_told(error, address)}."
        ) from None  # the error itself may repeat secrets
    return filesystem, root


def shown(address: str) -> str:
    """A URL as people may see it."""
    return _PARAMETER.sub(lambda found: f"{found['name']}…", _USER.sub("…", address))


def has_secrets(address: str) -> bool:
    """Whether a URL holds a password, a key or a token."""
    if "://" not in address:
        return False
    has_password = any(":" in user for user in _USER.findall(address))
    return has_password or _PARAMETER.search(address) is not None


def _one_request(address: str) -> str:
    """The URL with S3's writes in one request where they are small, unless it says otherwise."""
    if not address.startswith("s3://") or "allow_delayed_open=" in address or "#" in address:
        return address
    return f"{address}{'&' if '?' in address else '?'}allow_delayed_open=true"


def _told(error: Exception, address: str) -> str:
    """What is wrong, as the end of a sentence, without secrets."""
    told = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return _masked(told, address).rstrip(".")


def _masked(text: str, address: str) -> str:
    """A text without the secrets of an address."""
    text = text.replace(_one_request(address), shown(address)).replace(address, shown(address))
    for secret in _secrets(address):
        text = text.replace(secret, "…")
    return text


def _secrets(address: str) -> list[str]:
    """The secrets in a URL as they are written and as they are meant, longest first."""
    users = [part for found in _USER.findall(address) for part in (found, *found.split(":", 1))]
    values = users + [found["value"] for found in _PARAMETER.finditer(address)]
    both = {text for value in values for text in (value, unquote(value)) if text}
    return sorted(both, key=len, reverse=True)
