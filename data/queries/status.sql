-- How many stages of each grid are done, failed and missing.
SELECT
    grid,
    stage,
    count(*) FILTER (status = 'done') AS done,
    count(*) FILTER (status = 'failed') AS failed,
    count(*) FILTER (status = 'missing') AS missing
FROM grid_stages
GROUP BY grid, stage
ORDER BY grid, min(position);
