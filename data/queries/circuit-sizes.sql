-- All circuits with their sizes and ids.
-- $task = null: only this task
SELECT
    model, task, label AS method, level, rule AS extraction,
    size_asked, units_asked, fraction, n_units, n_edges, n_nodes, circuit
FROM circuit_sizes
WHERE $task IS NULL OR task = $task
ORDER BY model, task, label, rule, fraction, circuit;
