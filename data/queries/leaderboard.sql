-- Methods by how faithful their circuits are over all sizes (CPR), task by task.
-- $metric = null: only this metric
-- $level = null: only scores of edge, node or neuron level
-- Seconds are those of the attribution, whatever the extraction.
SELECT
    model, task, split, label AS method, rule AS extraction, metric, evaluated_under,
    cpr, cmd, log_cpr, log_cmd, seconds
FROM leaderboard
WHERE ($metric IS NULL OR metric = $metric) AND ($level IS NULL OR level = $level)
ORDER BY model, task, split, metric, evaluated_under, leaderboard.cpr DESC NULLS LAST, label,
    rule;
