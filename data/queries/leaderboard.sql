-- Methods by how faithful their circuits are over all sizes (CPR), task by task.
-- $metric = null: only this metric
-- Seconds are those of the attribution, whatever the extraction.
SELECT
    model, task, split,
    method || coalesce(' (' || steps || ', ' || quadrature || ')', '') AS method,
    algorithm, metric, cpr, cmd, log_cpr, log_cmd, seconds
FROM leaderboard
WHERE $metric IS NULL OR metric = $metric
ORDER BY model, task, split, metric, leaderboard.cpr DESC NULLS LAST, method, algorithm;
