-- How far circuits of one size share their edges, two by two, most alike first.
-- $size = null: only circuits asked for with this fraction of the units, such as 0.05
-- $task = null: only pairs with this task in them
SELECT
    level, coalesce(size_asked, units_asked) AS size, model, task, label AS method, rule AS extraction,
    other_model, other_task, other_label AS other_method, other_rule AS other_extraction,
    jaccard, n_shared, n_either, circuit, other_circuit
FROM shared_edges
WHERE ($size IS NULL OR size_asked = CAST($size AS DOUBLE))
    AND ($task IS NULL OR $task IN (task, other_task))
ORDER BY level, size, jaccard DESC NULLS LAST, task, label, other_task, other_label,
    circuit, other_circuit;
