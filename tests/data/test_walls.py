"""The SQL surface only reads, and only the store: each attack is tried and must fail."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data import Catalog, Store, StoreError
from tests.data.synthetic import build


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return Catalog(build(Store.open(tmp_path_factory.mktemp("store"))).store)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """Files that are none of the store's."""
    (tmp_path / "secret.csv").write_text("word\nopen sesame\n")
    (tmp_path / "secret.json").write_text('{"word": "open sesame"}')
    pq.write_table(pa.table({"word": ["open sesame"]}), tmp_path / "secret.parquet")
    duckdb.connect(tmp_path / "secret.duckdb").execute("CREATE TABLE t AS SELECT 1 AS x").close()
    return tmp_path


READING = [
    "SELECT * FROM '{0}/secret.csv'",
    "SELECT * FROM '{0}/secret.parquet'",
    "SELECT * FROM read_csv('{0}/secret.csv')",
    "SELECT * FROM read_csv_auto('{0}/secret.csv')",
    "SELECT * FROM sniff_csv('{0}/secret.csv')",
    "SELECT * FROM read_json('{0}/secret.json')",
    "SELECT * FROM read_parquet('{0}/secret.parquet')",
    "SELECT * FROM parquet_metadata('{0}/secret.parquet')",
    "SELECT * FROM read_text('{0}/secret.csv')",
    "SELECT * FROM read_blob('{0}/secret.csv')",
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM read_text('/proc/self/environ')",
    "SELECT * FROM glob('{0}/*')",
    "SELECT * FROM query('SELECT * FROM read_text(''{0}/secret.csv'')')",
    "SELECT * FROM query_table('{0}/secret.parquet')",
    "EXPLAIN ANALYZE SELECT * FROM read_text('{0}/secret.csv')",
    "SELECT getenv('HOME')",
    "SELECT * FROM arrow_scan(1, 2, 3)",
    "SELECT * FROM pandas_scan(1)",
    "SELECT * FROM python_secret",
]
WRITING = [
    "COPY (SELECT 1) TO '{0}/out.csv'",
    "COPY benchmark TO '{0}/out.parquet'",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO '{0}/out.csv'",
    "EXPORT DATABASE '{0}/out'",
    "ATTACH '{0}/secret.duckdb' AS other",
    "ATTACH '{0}/out.duckdb' AS other",
    "IMPORT DATABASE '{0}'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "LOAD '{0}/x.duckdb_extension'",
    "FORCE INSTALL json FROM 'http://localhost'",
    "CREATE TABLE t AS SELECT 1",
    "CREATE VIEW v AS SELECT 1",
    "CREATE OR REPLACE VIEW benchmark AS SELECT 1",
    "CREATE TEMP TABLE t AS SELECT 1",
    "CREATE SECRET (TYPE s3)",
    "CREATE PERSISTENT SECRET s (TYPE s3)",
    "CREATE MACRO m() AS 1",
    "DROP VIEW benchmark",
    "DELETE FROM stored_artifacts",
    "INSERT INTO stored_artifacts VALUES (1)",
    "WITH t AS (DELETE FROM stored_artifacts RETURNING key) SELECT * FROM t",
    "UPDATE stored_artifacts SET stage = 'x'",
    "SET enable_external_access = true",
    "SET lock_configuration = false",
    "RESET lock_configuration",
    "SET home_directory = '{0}'",
    "PRAGMA enable_external_access = true",
    "PRAGMA enable_profiling",
    "SET log_query_path = '{0}/log'",
    "CALL enable_logging()",
    "CHECKPOINT",
    "BEGIN; DROP VIEW benchmark; COMMIT",
    "SELECT 1; COPY (SELECT 1) TO '{0}/out.csv'",
    "ROLLBACK",
    "PREPARE p AS SELECT 1",
    "USE memory",
]


@pytest.mark.parametrize("attack", READING + WRITING)
def test_attack_is_refused_in_a_sentence_and_changes_nothing(
    catalog: Catalog, outside: Path, attack: str
) -> None:
    python_secret = pa.table({"word": ["open sesame"]})
    before = sorted(outside.rglob("*"))
    views = catalog.query("SHOW TABLES")
    with pytest.raises(StoreError) as refused:
        catalog.query(attack.format(outside))
    assert "sesame" not in str(refused.value)
    assert sorted(outside.rglob("*")) == before
    assert catalog.query("SHOW TABLES").equals(views)
    assert catalog.query("leaderboard").num_rows == 8
    assert python_secret.num_rows == 1


@pytest.mark.parametrize(
    "attack",
    [
        *(sql for sql in READING if "{0}" in sql),
        "COPY (SELECT 1) TO '{0}/out.csv'",
        "EXPORT DATABASE '{0}/out'",
        "ATTACH '{0}/out.duckdb' AS other",
        "ATTACH '{0}/secret.duckdb' AS other",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SET lock_configuration = false",
        "SET temp_directory = '{0}'",
    ],
)
def test_the_connection_itself_is_walled_in(catalog: Catalog, outside: Path, attack: str) -> None:
    before = sorted(outside.rglob("*"))
    with pytest.raises(duckdb.Error):
        catalog.connection().execute(attack.format(outside)).fetchall()
    assert sorted(outside.rglob("*")) == before


def test_a_table_in_memory_cannot_be_written_by_a_query(tmp_path: Path) -> None:
    catalog = Catalog(Store.open(tmp_path))
    catalog.connection().execute("CREATE TABLE t (x INTEGER)")
    with pytest.raises(StoreError, match="read-only"):
        catalog.query("WITH new AS (INSERT INTO t VALUES (1) RETURNING x) SELECT * FROM new")
    assert catalog.query("SELECT * FROM t").num_rows == 0


class _Counting(http.server.BaseHTTPRequestHandler):
    asked = 0

    def do_GET(self) -> None:
        type(self).asked += 1
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"word\nopen sesame\n")

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    """A server on this machine that counts who asks."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Counting) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "attack",
    [
        "SELECT * FROM '{0}/x.csv'",
        "SELECT * FROM read_csv('{0}/x.csv')",
        "SELECT * FROM read_parquet('{0}/x.parquet')",
        "SELECT * FROM read_text('{0}/x')",
        "ATTACH '{0}/x.duckdb' AS other",
        "INSTALL httpfs FROM '{0}'",
        "COPY (SELECT 1) TO '{0}/x.csv'",
    ],
)
def test_no_query_reaches_the_network(catalog: Catalog, server: str, attack: str) -> None:
    for ask in (catalog.query, catalog.connection().execute):
        with pytest.raises((StoreError, duckdb.Error)):
            ask(attack.format(server))
    assert _Counting.asked == 0


@pytest.mark.parametrize(
    "sql",
    [
        "FROM benchmark",
        "DESCRIBE benchmark",
        "SUMMARIZE benchmark",
        "SHOW TABLES",
        "EXPLAIN SELECT * FROM leaderboard",
        "SELECT 1;",
        "-- what\nSELECT 1 /* ; */",
        "WITH best AS (SELECT max(cpr) AS m FROM leaderboard) SELECT m FROM best",
        "PIVOT benchmark ON size_asked IN (0.1, 0.5) USING avg(faithfulness) GROUP BY method",
    ],
)
def test_whatever_reads_is_allowed(catalog: Catalog, sql: str) -> None:
    assert catalog.query(sql).num_rows > 0
