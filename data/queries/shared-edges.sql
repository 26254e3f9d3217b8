-- How far circuits of one size share their edges, two by two, most alike first.
-- $size = null: only circuits asked for with this fraction of the units, such as 0.05
-- $task = null: only pairs with this task in them
SELECT
    size_asked, task, label AS method, algorithm,
    other_task, other_label AS other_method, other_algorithm,
    jaccard, n_shared, n_either, circuit, other_circuit
FROM shared_edges
WHERE ($size IS NULL OR size_asked = CAST($size AS DOUBLE))
    AND ($task IS NULL OR $task IN (task, other_task))
ORDER BY size_asked, jaccard DESC NULLS LAST, task, method, other_task, other_method,
    circuit, other_circuit;
