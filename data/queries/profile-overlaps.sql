-- How far profiles overlap, two by two, models of different size included.
-- $task = null: only pairs with this task in them
SELECT
    level, model, concat_ws(' · ', task, label) AS first,
    other_model, concat_ws(' · ', other_task, other_label) AS second, overlap
FROM profile_overlap
WHERE $task IS NULL OR $task IN (task, other_task)
ORDER BY level, overlap DESC, model, first, other_model, second;
