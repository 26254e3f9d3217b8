"""An artifact: one Parquet file, and the small JSON file beside it that vouches for it.

The Parquet metadata holds the artifact's key, schema version, content digest and provenance. The
file's own SHA-256 cannot be in the file: it is in the JSON file, which is written last. An artifact
is finished exactly if the JSON file is there and the Parquet file matches it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from data.conformity import conform
from data.digest import content_digest
from data.errors import StoreError
from data.keys import parse_json
from data.memory import held
from data.schema import SCHEMA_VERSION, Table, since, table

_METADATA = b"circuit-grid"


@dataclass(frozen=True)
class Artifact:
    """A finished artifact: what it is, the digest of its rows, how many, where they come from."""

    kind: str
    key: str
    digest: str
    rows: int
    provenance: Mapping[str, object]


class OutdatedError(ValueError):
    """An artifact is of an older schema version, and its table has changed since."""


@dataclass(frozen=True)
class Damage:
    """A file of the store that counts as missing, and why, as half a sentence.

    `blocked` where something else is in its place: it cannot be rebuilt before that is removed.
    """

    path: str
    reason: str
    blocked: bool = False


@dataclass(frozen=True)
class Voucher:
    """The JSON file beside a Parquet file: the artifact and the SHA-256 of that very file."""

    artifact: Artifact
    sha256: str

    def to_json(self) -> bytes:
        """The bytes of the file."""
        artifact = self.artifact
        content = {
            "kind": artifact.kind,
            "key": artifact.key,
            "schema_version": SCHEMA_VERSION,
            "digest": artifact.digest,
            "rows": artifact.rows,
            "sha256": self.sha256,
            "provenance": dict(artifact.provenance),
        }
        return _signed(content)

    @classmethod
    def from_json(cls, content: bytes, kind: str, key: str) -> "Voucher":
        """Read it back; ValueError, as half a sentence, if it is not that of this kind and key."""
        try:
            found = parse_json(content)
        except ValueError as error:
            raise ValueError("its .json file is not JSON") from error
        if not isinstance(found, dict) or _signed(found) != content:
            raise ValueError("its .json file does not match its own digest")
        artifact, sha256 = _artifact(found, kind, key), found.get("sha256")
        if not isinstance(sha256, str):
            raise ValueError("its .json file lacks the digest of the file")
        return cls(artifact, sha256)


def _signed(description: dict[str, object]) -> bytes:
    """A description as JSON with the digest of all the rest of it in it."""
    unsigned = {name: value for name, value in description.items() if name != "self"}
    digest = file_digest(json.dumps(unsigned, sort_keys=True).encode())
    return json.dumps(unsigned | {"self": digest}, sort_keys=True, indent=1).encode()


def encode(rows: pa.Table, kind: str, key: str, provenance: Mapping[str, object]) -> bytes:
    """The Parquet file of an artifact; StoreError if rows or provenance do not fit."""
    declared = table(kind)
    rows = conform(rows, declared)
    try:
        description = json.dumps(
            {
                "kind": kind,
                "key": key,
                "schema_version": SCHEMA_VERSION,
                "digest": content_digest(rows),
                "rows": rows.num_rows,
                "provenance": dict(provenance),
            },
            sort_keys=True,
            allow_nan=False,
        )
    except (TypeError, ValueError) as error:
        raise StoreError(f"The provenance of {kind} {key} is not JSON: {error}.") from error
    metadata = {**(declared.schema.metadata or {}), _METADATA: description.encode()}
    sink = pa.BufferOutputStream()
    pq.write_table(
        rows.replace_schema_metadata(metadata),
        sink,
        compression="zstd",
        use_dictionary=declared.text_columns,
    )
    return sink.getvalue().to_pybytes()


def decode(content: bytes, declared: Table) -> pa.Table:
    """The rows of a Parquet file; ValueError, as half a sentence, if it is not one of this kind."""
    try:
        rows = pq.ParquetFile(held(content)).read()
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"it does not open as Parquet ({error})") from error
    if not rows.schema.equals(declared.schema):
        raise ValueError("its columns are not those of its table")
    return rows.replace_schema_metadata(declared.schema.metadata)


def vouch(content: bytes, kind: str, key: str) -> Voucher:
    """The voucher of a Parquet file that has none, from its metadata and a check of its rows.

    ValueError, as half a sentence, if the file is not whole or not that of this kind and key.
    """
    rows = decode(content, table(kind))
    metadata = pq.read_metadata(held(content)).metadata or {}
    try:
        found = parse_json(metadata[_METADATA])
    except (KeyError, ValueError) as error:
        raise ValueError("its metadata do not say what it is") from error
    artifact = _artifact(found, kind, key)
    if artifact.rows != rows.num_rows or artifact.digest != content_digest(rows):
        raise ValueError("its rows do not match their digest")
    return Voucher(artifact, file_digest(content))


def file_digest(content: bytes) -> str:
    """SHA-256 (hex) of a file's bytes."""
    return hashlib.sha256(content).hexdigest()


def _artifact(found: object, kind: str, key: str) -> Artifact:
    """The artifact that a JSON description tells of; ValueError if it is another one."""
    if not isinstance(found, dict):
        raise ValueError("its description is no JSON object")
    if found.get("kind") != kind or found.get("key") != key:
        raise ValueError("its description is that of another artifact")
    version = found.get("schema_version")
    if type(version) is not int or not 1 <= version <= SCHEMA_VERSION:
        raise ValueError(f"its schema version is {version}")
    if version < since(kind):
        raise OutdatedError(
            f"it is of schema version {version}, and {kind} is another table since version"
            f" {since(kind)}"
        )
    digest, rows, provenance = found.get("digest"), found.get("rows"), found.get("provenance")
    if not isinstance(digest, str) or type(rows) is not int or not isinstance(provenance, dict):
        raise ValueError("its description is incomplete")
    return Artifact(kind, key, digest, rows, provenance)
