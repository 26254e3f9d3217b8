-- Faithfulness at every size, one row a circuit; low and high are the ends of its interval.
-- $task = null: only this task
-- $method = null: only this method, with its options or without
SELECT
    model, task, split, CASE WHEN found_on <> task THEN found_on END AS found_on,
    label AS method, rule AS extraction, metric,
    concat(evaluated_under, ' over ' || means_over) AS evaluated_under,
    coalesce(size_asked, units_asked, threshold) AS asked, fraction, n_units, mean, standard_error,
    faithfulness, faithfulness_low AS low, faithfulness_high AS high
FROM benchmark
WHERE ($task IS NULL OR task = $task)
    AND ($method IS NULL OR $method IN (benchmark.method, label))
ORDER BY model, task, split, benchmark.found_on IS DISTINCT FROM task, benchmark.found_on, metric,
    benchmark.evaluated_under, means_over, label, rule, fraction;
