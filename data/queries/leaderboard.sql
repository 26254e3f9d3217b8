-- Methods by how faithful their circuits are over all sizes (CPR), task by task.
-- $metric = null: only this metric
SELECT
    model, task, split, method, steps, quadrature, algorithm, metric,
    cpr, cmd, log_cpr, log_cmd, seconds, peak_bytes, n_examples
FROM leaderboard
WHERE $metric IS NULL OR metric = $metric
ORDER BY model, task, split, metric, cpr DESC NULLS LAST, method, algorithm;
