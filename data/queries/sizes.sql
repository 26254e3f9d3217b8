-- Faithfulness at every size, one row a circuit.
-- $task = null: only this task
-- $method = null: only this method, with its options or without
SELECT
    model, task, split, label AS method, rule AS extraction, metric, evaluated_under,
    size_asked, fraction, n_units, n_edges, n_nodes, mean, standard_error, faithfulness
FROM benchmark
WHERE ($task IS NULL OR task = $task)
    AND ($method IS NULL OR $method IN (benchmark.method, label))
ORDER BY model, task, split, metric, evaluated_under, label, rule, fraction;
