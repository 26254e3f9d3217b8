"""All that is persisted: table schemas, the content-addressed store and its SQL catalog.

    store = Store.open("artifacts")
    key = stage_key("evaluate", 1, {"metric": "logit-diff"}, {"circuit": digest})
    store.write("evaluations", key, rows, provenance("evaluate", "ioi/EAP", seconds))
    Catalog(store).query("leaderboard")

Names are loaded when first used, so that importing this package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from data.artifact import Artifact, Damage
    from data.catalog import Catalog
    from data.digest import content_digest
    from data.errors import StoreError
    from data.failures import Failure
    from data.keys import stage_key
    from data.ledger import GridNote, PlannedStage, place_id
    from data.origin import provenance
    from data.schema import SCHEMA_VERSION, TABLES, Table
    from data.store import Store

_HOMES = {
    "Store": "data.store",
    "Artifact": "data.artifact",
    "Damage": "data.artifact",
    "Failure": "data.failures",
    "GridNote": "data.ledger",
    "PlannedStage": "data.ledger",
    "place_id": "data.ledger",
    "StoreError": "data.errors",
    "stage_key": "data.keys",
    "content_digest": "data.digest",
    "provenance": "data.origin",
    "Catalog": "data.catalog",
    "SCHEMA_VERSION": "data.schema",
    "TABLES": "data.schema",
    "Table": "data.schema",
}

__all__ = [
    "SCHEMA_VERSION",
    "TABLES",
    "Artifact",
    "Catalog",
    "Damage",
    "Failure",
    "GridNote",
    "PlannedStage",
    "Store",
    "StoreError",
    "Table",
    "content_digest",
    "place_id",
    "provenance",
    "stage_key",
]


def __getattr__(name: str) -> object:
    """Load a public name from its module."""
    if name not in _HOMES:
        raise AttributeError(f"module 'data' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
