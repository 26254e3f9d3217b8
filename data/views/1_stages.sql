-- What was done, what failed and what is being done: derived from the provenance of the artifacts.

-- Every stage that has finished or failed or is running, one row a key.
--   stage          name of the stage
--   cell           the cell of the grid that it was done for
--   status         done; stale: done, from inputs that have changed since; running; or failed
--   kinds          the tables it wrote
--   n_rows         rows in them
--   seconds        its own wall time
--   total_seconds  with the time of its parts, such as the shards of an attribution
--   peak_bytes     the most memory it or a part of it took
--   device         where it, or its parts, ran
--   dtype          the model's dtype there
--   versions       JSON object of the versions it was made with
--   finished_at    when it finished or failed, UTC
--   error          why it failed
--   holder         the process that is at it, as host:pid
--   running_since  when that took it up, UTC, by its own clock
--   key            the key of its artifacts
CREATE VIEW stages AS
WITH finished AS (
    SELECT
        key,
        any_value(stage) AS stage,
        any_value(cell) AS cell,
        string_agg(kind, ', ' ORDER BY kind) AS kinds,
        CAST(sum(n_rows) AS BIGINT) AS n_rows,
        max(seconds) AS seconds,
        max(peak_bytes) AS peak_bytes,
        any_value(device) AS device,
        any_value(dtype) AS dtype,
        any_value(versions) AS versions,
        max(finished_at) AS finished_at
    FROM stored_artifacts
    GROUP BY key
),
links AS (
    SELECT DISTINCT key, unnest(parts) AS part FROM stored_artifacts
),
parts AS (
    SELECT
        links.key,
        sum(finished.seconds) AS seconds,
        max(finished.peak_bytes) AS peak_bytes,
        any_value(finished.device) AS device,
        any_value(finished.dtype) AS dtype
    FROM links JOIN finished ON finished.key = links.part
    GROUP BY links.key
),
planned AS (
    SELECT key, any_value(stage) AS stage, any_value(cell) AS cell
    FROM stored_grids
    WHERE key IS NOT NULL
    GROUP BY key
)
SELECT
    stage,
    cell,
    CASE WHEN key IN (SELECT key FROM stored_stale) THEN 'stale' ELSE 'done' END AS status,
    kinds,
    n_rows,
    finished.seconds,
    finished.seconds + coalesce(parts.seconds, 0) AS total_seconds,
    greatest(finished.peak_bytes, parts.peak_bytes) AS peak_bytes,
    coalesce(finished.device, parts.device) AS device,
    coalesce(finished.dtype, parts.dtype) AS dtype,
    versions,
    TRY_CAST(finished_at AS TIMESTAMP) AS finished_at,
    CAST(NULL AS VARCHAR) AS error,
    CAST(NULL AS VARCHAR) AS holder,
    CAST(NULL AS TIMESTAMP) AS running_since,
    key
FROM finished LEFT JOIN parts USING (key)
UNION ALL BY NAME
SELECT
    stage, cell, 'failed' AS status, TRY_CAST(time AS TIMESTAMP) AS finished_at,
    sentence AS error, key
FROM stored_failures
WHERE key NOT IN (SELECT key FROM finished) AND key NOT IN (SELECT key FROM stored_leases)
UNION ALL BY NAME
SELECT
    stage, cell, 'running' AS status, host || ':' || pid AS holder,
    TRY_CAST(since AS TIMESTAMP) AS running_since, stored_leases.key
FROM stored_leases LEFT JOIN planned USING (key)
WHERE stored_leases.key NOT IN (SELECT key FROM finished);

-- How long each kind of stage took, over all cells.
--   stage           name of the stage
--   n_done          times it finished
--   n_failed        times it failed
--   seconds         wall time of all together
--   mean_seconds    wall time of one
--   max_seconds     wall time of the slowest
--   peak_bytes      the most memory one took
--   last_finished   when the last one finished, UTC
CREATE VIEW run_times AS
SELECT
    stage,
    count(*) FILTER (status IN ('done', 'stale')) AS n_done,
    count(*) FILTER (status = 'failed') AS n_failed,
    sum(seconds) AS seconds,
    avg(seconds) AS mean_seconds,
    max(seconds) AS max_seconds,
    max(peak_bytes) AS peak_bytes,
    max(finished_at) AS last_finished
FROM stages
GROUP BY stage;

-- The stages that every grid consists of, and how far each has come.
--   grid      name of the grid
--   position  place in the plan, from 0
--   stage     name of the stage
--   cell      the cell of the grid
--   status    done, running, failed, missing, or stale: to be made anew, for its inputs have changed
--   error     why it failed
--   holder    the process that is at it, as host:pid
--   key       its key; null while its inputs are not known
CREATE VIEW grid_stages AS
WITH former AS (
    SELECT DISTINCT grid, position
    FROM (SELECT grid, position, kind, unnest(former) AS key FROM stored_grids WHERE key IS NOT NULL)
    SEMI JOIN stored_artifacts USING (kind, key)
)
SELECT
    planned.grid,
    planned.position,
    planned.stage,
    planned.cell,
    CASE
        WHEN artifacts.key IS NOT NULL THEN 'done'
        WHEN leases.key IS NOT NULL THEN 'running'
        WHEN failures.key IS NOT NULL THEN 'failed'
        WHEN former.grid IS NOT NULL THEN 'stale'
        ELSE 'missing'
    END AS status,
    CASE WHEN artifacts.key IS NULL THEN failures.sentence END AS error,
    CASE WHEN artifacts.key IS NULL THEN leases.host || ':' || leases.pid END AS holder,
    planned.key
FROM stored_grids AS planned
LEFT JOIN stored_artifacts AS artifacts
    ON artifacts.kind = planned.kind AND artifacts.key = planned.key
LEFT JOIN stored_failures AS failures ON failures.key = planned.key
LEFT JOIN (SELECT key, any_value(host) AS host, any_value(pid) AS pid FROM stored_leases GROUP BY key)
    AS leases ON leases.key = planned.key
LEFT JOIN former ON former.grid = planned.grid AND former.position = planned.position;

-- Files of the store, artifacts and notes of grids, that count as missing because they are damaged.
--   path    path in the store
--   reason  what is wrong with it
CREATE VIEW damaged AS
SELECT path, reason FROM stored_damage;
