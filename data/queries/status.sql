-- How many stages of each grid are done, missing, running, failed and stale.
SELECT
    grid,
    stage,
    count(*) FILTER (status = 'done') AS done,
    count(*) FILTER (status = 'missing') AS missing,
    count(*) FILTER (status = 'running') AS running,
    count(*) FILTER (status = 'failed') AS failed,
    count(*) FILTER (status = 'stale') AS stale
FROM grid_stages
GROUP BY grid, stage
ORDER BY grid, min(position);
