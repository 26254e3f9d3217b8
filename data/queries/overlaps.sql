-- How far circuits of one rule and size overlap, two by two, against what chance would give.
-- $size = null: only circuits asked for with this fraction of the units, such as 0.05
-- $task = null: only pairs with this task in them
SELECT
    level, rule AS extraction, coalesce(size_asked, units_asked, threshold) AS size,
    model, concat_ws(' · ', task, label) AS first,
    other_model, concat_ws(' · ', other_task, other_label) AS second,
    n_units AS n, other_n_units AS n_other, n_shared, expected, p_value,
    jaccard_edges AS jaccard, jaccard_nodes
FROM circuit_overlap
WHERE ($size IS NULL OR size_asked = CAST($size AS DOUBLE))
    AND ($task IS NULL OR $task IN (task, other_task))
ORDER BY level, rule, size, jaccard_edges DESC NULLS LAST, model, first, other_model, second;
