-- The edges with the greatest |score| of each attribution.
-- $task = null: only this task
-- $method = null: only this method, with its options or without
-- $n = 10: how many of each
SELECT model, task, label AS method, rank, edge, kind, score, standard_error
FROM edge_scores
WHERE rank <= CAST($n AS INTEGER)
    AND score IS NOT NULL
    AND ($task IS NULL OR task = $task)
    AND ($method IS NULL OR $method IN (edge_scores.method, label))
ORDER BY model, task, label, scores, rank;
