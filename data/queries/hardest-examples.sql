-- The examples on which circuits are furthest from the whole model.
-- $task = null: only this task
-- $size = null: only circuits asked for with this fraction of the units
-- $n = 20: how many
SELECT
    model, task, label AS method, rule AS extraction, metric, evaluated_under, size_asked, n_edges,
    clean_text, value, clean, corrupted, faithfulness
FROM example_faithfulness
WHERE ($task IS NULL OR task = $task)
    AND ($size IS NULL OR size_asked = CAST($size AS DOUBLE))
ORDER BY abs(value - clean) DESC, evaluation, example_id
LIMIT CAST($n AS INTEGER);
