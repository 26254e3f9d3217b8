-- How far scores agree, two by two, most alike first.
-- $task = null: only pairs with this task in them
-- $level = null: only scores of edge, node or neuron level
SELECT
    level, model, concat_ws(' · ', task, label) AS first,
    other_model, concat_ws(' · ', other_task, other_label) AS second,
    n_common, kendall_tau AS tau, rank_biased_overlap AS rbo, weighted_iou AS iou
FROM score_agreement
WHERE ($task IS NULL OR $task IN (task, other_task)) AND ($level IS NULL OR level = $level)
ORDER BY level, rbo DESC NULLS LAST, model, first, other_model, second;
