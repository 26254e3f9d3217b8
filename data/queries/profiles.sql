-- Where the |score| of each attribution lies: shares by side, kind and relative depth.
-- $task = null: only this task
-- $method = null: only this method, with its options
SELECT
    model, task, label AS method, level, side, kind, from_depth, to_depth, share
FROM profiles
WHERE ($task IS NULL OR task = $task) AND ($method IS NULL OR label = $method)
ORDER BY model, task, label, level, scores, side DESC, kind, from_depth NULLS FIRST;
