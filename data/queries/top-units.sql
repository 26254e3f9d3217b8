-- The edges, nodes or neurons with the greatest |score| of each attribution.
-- $level = null: only scores of edge, node or neuron level
-- $task = null: only this task
-- $method = null: only this method, with its options or without
-- $n = 10: how many of each
SELECT model, task, label AS method, level, rank, unit, kind, score, standard_error
FROM unit_scores
WHERE rank <= CAST($n AS INTEGER)
    AND score IS NOT NULL
    AND ($level IS NULL OR level = $level)
    AND ($task IS NULL OR task = $task)
    AND ($method IS NULL OR $method IN (unit_scores.method, label))
ORDER BY model, task, label, scores, rank;
