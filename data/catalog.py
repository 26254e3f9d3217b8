"""The catalog: SQL over the store, with nothing of its own to lose.

A DuckDB database in memory whose views (`data/views/*.sql`) read the Parquet files of complete,
intact artifacts, each table once a question names it. The files are opened by this process and
handed to DuckDB as Arrow datasets, so DuckDB itself needs no file and no network, and is denied
both: its external access is off, no extension can be loaded, and the configuration is locked.
`query` takes one SELECT and runs it in a read-only transaction.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from importlib.resources import files

import duckdb
import pyarrow as pa

from data.errors import StoreError
from data.named_queries import NamedQuery, check_parameters, named_queries
from data.schema import TABLES
from data.store import Store
from data.tables import stored_tables

_DENIED = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "allow_persistent_secrets": "false",
    "python_enable_replacements": "false",
    "temp_directory": "",
}
_HIDDEN = ("shards",)  # sums on the way to scores: their rows do not say of what
_VIEW = re.compile(
    r"^-- (?P<description>[^\n]+)\n(?:--[^\n]*\n)*CREATE VIEW (?P<name>\w+)", re.MULTILINE
)
_COMMENT = re.compile(r"--[^\n]*")
_WRITTEN = re.compile(r"CREATE VIEW (?P<name>\w+)(?P<body>.*?)(?=CREATE VIEW|\Z)", re.DOTALL)
_NAME = re.compile(r"\s*[\w-]+\s*")
_READS = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)


class Catalog:
    """The views of a store as it is when the catalog is made."""

    def __init__(self, store: Store) -> None:
        self._queries = named_queries()
        self._views = _described_views()
        self._connection = duckdb.connect(":memory:", config=_DENIED)
        self._stored = stored_tables(store)
        for name, stored in self._stored.items():
            self._connection.register(name, stored.schema.empty_table())
        self._words: dict[str, set[str]] = {}  # what each view names, in lower case
        for statement in (*_table_views(), *_view_files()):
            self._connection.execute(statement)
            for view in _WRITTEN.finditer(_COMMENT.sub("", statement)):
                self._words[view["name"].lower()] = _words(view["body"])
        self._connection.execute("SET lock_configuration = true")

    @property
    def queries(self) -> Mapping[str, NamedQuery]:
        """The named queries."""
        return self._queries

    @property
    def views(self) -> Mapping[str, str]:
        """The views by name, each with what a row of it is."""
        return self._views

    def connection(self) -> duckdb.DuckDBPyConnection:
        """The DuckDB connection: in memory, locked; nothing done there reaches the store."""
        self._provide(set(self._stored))
        return self._connection

    def query(self, name_or_sql: str, **parameters: object) -> pa.Table:
        """The rows of a named query, of a whole view, or of one SELECT with `$name` parameters.

        StoreError for an unknown name, a missing or unknown parameter, anything but one SELECT, and
        for SQL that fails.
        """
        sql, values = self._resolve(name_or_sql, parameters)
        self._provide(self._named_by(sql))
        try:
            statements = self._connection.extract_statements(sql)
            if len(statements) != 1 or statements[0].type not in _READS:
                raise StoreError("The catalog only reads: give one SELECT statement.")
            check_parameters(statements[0].named_parameters, values)
            return self._read(statements[0], values)
        except duckdb.Error as error:
            raise StoreError(f"The query cannot be run: {_first_line(error)}") from error

    def _resolve(
        self, name_or_sql: str, parameters: Mapping[str, object]
    ) -> tuple[str, dict[str, object]]:
        """The SQL that is meant, and the values for its parameters."""
        name = name_or_sql.strip()
        if not _NAME.fullmatch(name_or_sql):
            return name_or_sql, dict(parameters)
        if name in self._queries:
            return self._queries[name].sql, self._queries[name].bind(parameters)
        if name in self._views:
            return f"SELECT * FROM {name}", dict(parameters)
        known = [*self._queries, *self._views]
        nearest = difflib.get_close_matches(name, known, n=1)
        meant = f"did you mean {nearest[0]!r}" if nearest else f"there are {', '.join(known)}"
        raise StoreError(f"There is no query or view {name!r}: {meant}, or give a SELECT.")

    def _named_by(self, sql: str) -> set[str]:
        """The stored tables that a query may read: of the words in it and in the views it names."""
        waiting, named = _words(sql), set[str]()
        while waiting:
            word = waiting.pop()
            named.add(word)
            waiting |= self._words.get(word, set()) - named
        return named & set(self._stored)

    def _provide(self, names: Iterable[str]) -> None:
        """Let DuckDB read tables that were empty so far, because nobody had asked for them."""
        for name in sorted(set(names) & set(self._stored)):
            self._connection.register(name, self._stored.pop(name).rows())

    def _read(self, statement: duckdb.Statement, values: Mapping[str, object]) -> pa.Table:
        """Run one statement in a transaction that cannot write, even in memory."""
        self._connection.execute("BEGIN TRANSACTION READ ONLY")
        try:
            return self._connection.sql(statement, params=dict(values)).to_arrow_table()
        finally:
            self._connection.execute("ROLLBACK")


def _table_views() -> list[str]:
    """A view for every table; rows that several artifacts hold are there once.

    Ids name content, so a circuit of two lists of sizes, or a graph of two models, is stored twice.
    The ids of scores are those of their only artifact.
    """
    statements = []
    for table in TABLES.values():
        if table.name in _HIDDEN:
            continue
        key = ", ".join(table.key)
        once = "*" if table.name == "scores" else f"DISTINCT ON ({key}) *"
        statements.append(f"CREATE VIEW {table.name} AS SELECT {once} FROM stored_{table.name}")
    return statements


def _view_files() -> list[str]:
    """The texts of `data/views/*.sql`, in the order in which they build on each other."""
    folder = files("data").joinpath("views")
    paths = sorted(folder.iterdir(), key=lambda path: path.name)
    return [path.read_text(encoding="utf-8") for path in paths if path.name.endswith(".sql")]


def _described_views() -> dict[str, str]:
    """All views by name with their descriptions, those with names in them first."""
    written = {
        match["name"]: match["description"]
        for text in _view_files()
        for match in _VIEW.finditer(text)
    }
    tables = {
        table.name: f"The table itself: one row is {table.row}."
        for table in TABLES.values()
        if table.name not in _HIDDEN
    }
    return written | tables


def _words(sql: str) -> set[str]:
    """All words of a text of SQL in lower case."""
    return set(re.findall(r"\w+", sql.lower()))


def _first_line(error: duckdb.Error) -> str:
    """What DuckDB says first, as the end of a sentence."""
    return f"{str(error).splitlines()[0].rstrip('.!')}."
