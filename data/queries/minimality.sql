-- What each unit adds to its circuit, least first, units that do harm before all others.
-- $task = null: only this task
-- $size = null: only circuits asked for with this fraction of the units
SELECT
    model, task, label AS method, rule AS extraction, metric, evaluated_under, size_asked, n_units,
    unit, marginal, standard_error, share, circuit
FROM unit_marginals
WHERE ($task IS NULL OR task = $task)
    AND ($size IS NULL OR size_asked = CAST($size AS DOUBLE))
ORDER BY model, task, label, rule, metric, evaluated_under, n_units, circuit, marginal,
    unit_id;
