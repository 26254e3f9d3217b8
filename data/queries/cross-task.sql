-- Every task's circuits on every task's examples: the area under faithfulness.
-- $metric = null: only this metric
SELECT
    model, label AS method, rule AS extraction, metric, evaluated_under,
    found_on, task AS run_on, cpr, cpr_low, cpr_high, cmd, n_evaluated AS examples
FROM leaderboard
WHERE ($metric IS NULL OR metric = $metric)
ORDER BY model, label, rule, metric, evaluated_under, found_on, run_on;
