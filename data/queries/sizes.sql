-- Faithfulness at every size, one row a circuit.
-- $task = null: only this task
-- $method = null: only this method
SELECT
    model, task, split, method, steps, quadrature, algorithm, metric,
    size_asked, fraction, n_edges, n_nodes, mean, standard_error, faithfulness
FROM benchmark
WHERE ($task IS NULL OR task = $task) AND ($method IS NULL OR method = $method)
ORDER BY model, task, split, metric, method, steps, quadrature, algorithm, fraction;
