"""The marker of a store, `store.json`: that it is one, and the schema version it was made with."""

import errno
import json
import os

from data.access import refusal
from data.errors import StoreError
from data.keys import parse_json
from data.location import MARKER, Location
from data.origin import versions
from data.schema import SCHEMA_VERSION

_FORMAT = "circuit-grid store"


def admit(place: Location, create: bool) -> None:
    """Check the marker of the store at a place; if `create`, make the store, or raise its version.

    A store of an older version stays of use (see `since` in data/schema.py), to this version alone
    once it was opened for writing. StoreError if it is of a newer version, missing and not to be
    made, or something else; StoreAccessError if the place cannot be read or written.
    """
    marker = place.read(MARKER)
    if marker is None and (entries := place.entries()):
        marker = place.read(MARKER)  # another process may have made the store meanwhile
        if marker is None:
            raise StoreError(
                f"{place.name!r} is not a store and not empty (it holds {entries[0]!r}): choose an"
                " empty or new directory with --store or CIRCUIT_GRID_STORE."
            )
    if marker is not None:
        version = _version(marker, place.name)
        if create and place.is_local and not os.access(place.root, os.W_OK):
            said = PermissionError(errno.EACCES, "it cannot be written to")
            raise refusal(said, f"The store {place.name!r} cannot be opened")
        if create and version < SCHEMA_VERSION:
            _mark(place)
    elif create:
        _mark(place)
    else:
        raise StoreError(
            f"There is no store at {place.name!r}: run a grid first, or say where it is with"
            " --store or CIRCUIT_GRID_STORE."
        )


def version_of(place: Location) -> int:
    """The schema version that a store is marked with; StoreError if it cannot be known."""
    return _version(place.read(MARKER) or b"", place.name)


def _mark(place: Location) -> None:
    """Write the marker of this version."""
    content = {
        "format": _FORMAT,
        "schema_version": SCHEMA_VERSION,
        "written_by": versions().get("circuit-grid", "unknown"),
    }
    place.establish(json.dumps(content, indent=1).encode())


def _version(marker: bytes, name: str) -> int:
    """The version that a marker says; StoreError unless it is one that can be read here."""
    try:
        found = parse_json(marker)
        is_store, version = found["format"] == _FORMAT, int(found["schema_version"])
        if is_store and version < 1:
            raise ValueError
    except (ValueError, KeyError, TypeError, OverflowError) as error:
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
    return version
