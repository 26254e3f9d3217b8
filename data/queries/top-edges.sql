-- The edges with the greatest |score| of each attribution.
-- $task = null: only this task
-- $method = null: only this method
-- $n = 10: how many of each
SELECT model, task, method, steps, quadrature, rank, edge, kind, score, standard_error
FROM edge_scores
WHERE rank <= CAST($n AS INTEGER)
    AND ($task IS NULL OR task = $task)
    AND ($method IS NULL OR method = $method)
ORDER BY model, task, method, steps, quadrature, scores, rank;
