"""The marker of a store, `store.json`: that it is one, and the schema version it was made with."""

import errno
import json
import os

from data.errors import StoreError
from data.location import Location
from data.origin import versions
from data.schema import SCHEMA_VERSION

_MARKER = "store.json"
_FORMAT = "circuit-grid store"


def admit(place: Location, create: bool) -> None:
    """Check the marker of the store at a place, or make the store if `create`.

    StoreError if it is of another schema version, missing and not to be made, or something else;
    OSError if the place cannot be read or written.
    """
    marker = place.read(_MARKER)
    if marker is None and (entries := place.entries()):
        marker = place.read(_MARKER)  # another process may have made the store meanwhile
        if marker is None:
            raise StoreError(
                f"{place.name!r} is not a store and not empty (it holds {entries[0]!r}): choose an"
                " empty or new directory with --store or CIRCUIT_GRID_STORE."
            )
    if marker is not None:
        _check_marker(marker, place.name)
        if create and place.is_local and not os.access(place.root, os.W_OK):
            raise PermissionError(errno.EACCES, "it cannot be written to")
    elif create:
        content = {
            "format": _FORMAT,
            "schema_version": SCHEMA_VERSION,
            "written_by": versions().get("circuit-grid", "unknown"),
        }
        place.put(_MARKER, json.dumps(content, indent=1).encode())
    else:
        raise StoreError(
            f"There is no store at {place.name!r}: run a grid first, or say where it is with"
            " --store or CIRCUIT_GRID_STORE."
        )


def _check_marker(marker: bytes, name: str) -> None:
    """StoreError unless the marker is that of a store this version can read."""
    try:
        found = json.loads(marker)
        is_store, version = found["format"] == _FORMAT, int(found["schema_version"])
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{name!r} has a store.json that cannot be read: restore it from a copy of the store,"
            " or choose another place with --store or CIRCUIT_GRID_STORE."
        ) from error
    if not is_store:
        raise StoreError(
            f"{name!r} holds a store.json of something else: choose another place with --store or"
            " CIRCUIT_GRID_STORE."
        )
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"The store {name!r} has schema version {version}, written by circuit-grid"
            f" {found.get('written_by', 'unknown')}; this one reads up to version {SCHEMA_VERSION}:"
            " upgrade circuit-grid, or choose another place with --store or CIRCUIT_GRID_STORE."
        )
    if version < SCHEMA_VERSION:
        raise StoreError(
            f"The store {name!r} has schema version {version}, and this circuit-grid reads version"
            f" {SCHEMA_VERSION} alone: keep it for the circuit-grid that wrote it"
            f" ({found.get('written_by', 'unknown')}), and choose another place with --store or"
            " CIRCUIT_GRID_STORE; or remove it, and run the grid again."
        )
