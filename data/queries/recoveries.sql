-- How well each method finds circuits that are known by construction (models truth/...).
-- $task = null: only this task
SELECT
    model, task, label AS method, level, n_true, n_units, precision, recall, auroc, auprc, seconds
FROM truth_recovery
WHERE $task IS NULL OR task = $task
ORDER BY model, task, level, auprc DESC NULLS LAST, label;
