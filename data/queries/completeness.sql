-- The faithfulness of every circuit, and of the model without it: 0 if the circuit is complete.
-- $task = null: only this task
-- $method = null: only this method, with its options
SELECT
    model, task, found_on, label AS method, rule AS extraction, metric, evaluated_under,
    size_asked, n_units, level, faithfulness, without, without_low, without_high
FROM completeness
WHERE ($task IS NULL OR task = $task) AND ($method IS NULL OR label = $method)
ORDER BY model, task, found_on, label, rule, metric, evaluated_under, fraction, circuit;
