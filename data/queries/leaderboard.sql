-- Methods by how faithful their circuits are over all sizes (CPR), task by task.
-- $metric = null: only this metric
-- $level = null: only scores of edge, node or neuron level
-- Seconds are those of the attribution, whatever the extraction; low and high are the ends of CPR's
-- interval; examples are those judged on; found_on is the task that circuits were found on, where
-- that is another one. Areas that stop short of the whole model where others reach it, or are over
-- much fewer sizes, say which and stand below them: they do not compare.
SELECT
    model, task, split, CASE WHEN found_on <> task THEN found_on END AS found_on,
    label AS method, rule AS extraction, metric,
    concat(evaluated_under, ' over ' || means_over) AS evaluated_under,
    CASE WHEN NOT comparable THEN format('{:.3g} to {:.3g}', smallest, largest) END AS sizes,
    cpr, cpr_low AS low, cpr_high AS high, cmd, log_cpr, log_cmd, seconds, n_evaluated AS examples
FROM leaderboard
WHERE ($metric IS NULL OR metric = $metric) AND ($level IS NULL OR level = $level)
ORDER BY model, task, split, metric, leaderboard.evaluated_under, means_over,
    leaderboard.found_on IS DISTINCT FROM task, leaderboard.found_on,
    comparable DESC NULLS LAST, leaderboard.cpr DESC NULLS LAST, label, rule;
