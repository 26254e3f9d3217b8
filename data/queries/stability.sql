-- How often each unit is among the best when the examples are drawn again, most often first.
-- $task = null: only this task
-- $method = null: only this method, with its options
-- $n = 20: how many of each
SELECT
    model, task, label AS method, level, n_best, n_resamples, mean_jaccard,
    unit, frequency, rank, score
FROM unit_stability
WHERE ($task IS NULL OR task = $task) AND ($method IS NULL OR label = $method)
QUALIFY row_number() OVER (
    PARTITION BY scores, n_best, n_resamples ORDER BY frequency DESC, rank
) <= CAST($n AS INTEGER)
ORDER BY model, task, label, scores, n_best, frequency DESC, rank;
