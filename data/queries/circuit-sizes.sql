-- All circuits with their sizes and ids.
-- $task = null: only this task
SELECT
    model, task, method, steps, quadrature, level, algorithm,
    size_asked, edges_asked, fraction, n_edges, n_nodes, circuit
FROM circuit_sizes
WHERE $task IS NULL OR task = $task
ORDER BY model, task, method, steps, quadrature, algorithm, fraction, circuit;
