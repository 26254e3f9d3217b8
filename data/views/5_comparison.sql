-- Scores beside scores, circuits beside circuits, models of different size beside each other.

-- Sets of scores of one graph and level, two by two.
--   level                edge, node or neuron
--   model                name of the model of the first
--   task                 task of the first; null if it was imported
--   label                method of the first with its options
--   other_model          name of the model of the second
--   other_task           task of the second
--   other_label          method of the second with its options
--   n_common             units scored in both
--   kendall_tau          Kendall's tau-b of the scores
--   rank_biased_overlap  of the rankings by |score|
--   weighted_iou         shared over joint |score|, each set's summing to 1
--   scores, other_scores  ids, the lesser one first: each pair is there once
CREATE VIEW score_agreement AS
SELECT
    one.level,
    one.model, one.task, one.label,
    other.model AS other_model,
    other.task AS other_task,
    other.label AS other_label,
    pairs.n_common,
    pairs.kendall_tau,
    pairs.rank_biased_overlap,
    pairs.weighted_iou,
    pairs.scores_a AS scores,
    pairs.scores_b AS other_scores
FROM score_comparisons AS pairs
JOIN attributions AS one ON one.scores = pairs.scores_a
JOIN attributions AS other ON other.scores = pairs.scores_b;

-- Circuits of one graph, level, rule and size, two by two, against what chance would give.
--   level          edge, node or neuron
--   rule           how both were extracted
--   size_asked     fraction of the units of their level asked for
--   units_asked    number of units asked for
--   threshold      least score asked for
--   model          name of the model of the first
--   task           task of the first; null if it was imported
--   label          method of the first with its options
--   other_model    name of the model of the second
--   other_task     task of the second
--   other_label    method of the second with its options
--   n_units        units of the first
--   other_n_units  units of the second
--   n_shared       units in both
--   expected       units that circuits of these sizes share by chance
--   p_value        probability that chance shares as many or more (hypergeometric)
--   jaccard_edges  edges in both over edges in either
--   jaccard_nodes  nodes in both over nodes in either
--   precision      share of the units of the first that are in the second
--   recall         share of the units of the second that are in the first
--   circuit, other_circuit  ids, the lesser one first: each pair is there once
CREATE VIEW circuit_overlap AS
SELECT
    one.level,
    one.rule,
    one.size_asked,
    one.units_asked,
    one.threshold,
    one.model, one.task, one.label,
    other.model AS other_model,
    other.task AS other_task,
    other.label AS other_label,
    pairs.n_a AS n_units,
    pairs.n_b AS other_n_units,
    pairs.n_shared,
    pairs.expected,
    pairs.p_value,
    pairs.jaccard_edges,
    pairs.jaccard_nodes,
    pairs.precision,
    pairs.recall,
    pairs.circuit_a AS circuit,
    pairs.circuit_b AS other_circuit
FROM circuit_comparisons AS pairs
JOIN circuit_sizes AS one ON one.circuit = pairs.circuit_a
JOIN circuit_sizes AS other ON other.circuit = pairs.circuit_b;

-- Where the |score| of a set lies: by side, kind of component and relative depth.
--
-- Layer l of L covers the depths from l/L to (l + 1)/L, and ten bins cut the depths from 0 to 1, so
-- that models of different size stand side by side. An edge counts half where it is written and
-- half where it is read; a node or a neuron where it is written. The shares of a set sum to 1.
--   model       name of the model
--   task        task scored on
--   method      name of the method
--   label       the method with its options
--   level       edge, node or neuron
--   side        written or read
--   kind        written: input, head or mlp; read: q, k, v, mlp or logits
--   from_depth  where the bin begins, from 0; null for input and logits
--   to_depth    where it ends, up to 1
--   share       of the set's total |score|
--   scores      id of the set of scores
CREATE VIEW profiles AS
WITH scored AS (
    SELECT scores, model, graph, level, unit_id, abs(score) AS weight
    FROM stored_scores
    WHERE score IS NOT NULL AND NOT isnan(score)
),
ends AS (  -- both ends of edges, and nodes
    SELECT
        scored.scores, scored.graph, 'written' AS side, weight / 2 AS weight,
        CASE
            WHEN edges.writer_layer < 0 THEN 'input'
            WHEN edges.writer_head IS NULL THEN 'mlp'
            ELSE 'head'
        END AS kind,
        edges.writer_layer AS layer
    FROM scored
    JOIN edges ON edges.graph = scored.graph AND edges.edge_id = scored.unit_id
    WHERE scored.level = 'edge'
    UNION ALL
    SELECT scored.scores, scored.graph, 'read', weight / 2, edges.kind, edges.reader_layer
    FROM scored
    JOIN edges ON edges.graph = scored.graph AND edges.edge_id = scored.unit_id
    WHERE scored.level = 'edge'
    UNION ALL
    SELECT scored.scores, scored.graph, 'written', weight, nodes.kind, nodes.layer
    FROM scored
    JOIN models ON models.model = scored.model
    JOIN nodes
        ON nodes.graph = scored.graph
        AND nodes.node_id = CASE scored.level
            WHEN 'node' THEN scored.unit_id ELSE scored.unit_id // models.d_model
        END
    WHERE scored.level <> 'edge'
),
layers AS (
    SELECT
        scores, side, kind,
        CASE WHEN kind NOT IN ('input', 'logits') THEN layer / n_layers END AS top,
        CASE WHEN kind NOT IN ('input', 'logits') THEN (layer + 1) / n_layers END AS bottom,
        sum(weight) AS weight
    FROM ends JOIN graphs USING (graph)
    GROUP BY scores, side, kind, top, bottom
),
totals AS (
    SELECT scores, sum(weight) AS total FROM layers GROUP BY scores
),
bins AS (
    SELECT range / 10 AS from_depth, (range + 1) / 10 AS to_depth FROM range(10)
),
shares AS (
    SELECT
        scores, side, kind, from_depth, to_depth,
        sum(
            weight * greatest(0, least(bottom, to_depth) - greatest(top, from_depth))
            / (bottom - top)
        ) AS weight
    FROM layers CROSS JOIN bins
    WHERE top IS NOT NULL
    GROUP BY scores, side, kind, from_depth, to_depth
    UNION ALL
    SELECT scores, side, kind, NULL, NULL, weight FROM layers WHERE top IS NULL
)
SELECT
    attributions.model,
    attributions.task,
    attributions.method,
    attributions.label,
    attributions.level,
    shares.side,
    shares.kind,
    shares.from_depth,
    shares.to_depth,
    shares.weight / totals.total AS share,
    shares.scores
FROM shares
JOIN totals ON totals.scores = shares.scores AND totals.total > 0
JOIN attributions ON attributions.scores = shares.scores;

-- Profiles of one level, two by two, also of models of different size: how far they overlap.
--   level        edge, node or neuron
--   model        name of the model of the first
--   task         task of the first; null if it was imported
--   label        method of the first with its options
--   other_model  name of the model of the second
--   other_task   task of the second
--   other_label  method of the second with its options
--   overlap      the shares that both have in the same place: 1 for equal profiles
--   scores, other_scores  ids, the lesser one first: each pair is there once
CREATE VIEW profile_overlap AS
WITH shared AS (
    SELECT one.scores, other.scores AS other_scores, sum(least(one.share, other.share)) AS overlap
    FROM profiles AS one
    JOIN profiles AS other
        ON one.level = other.level
        AND one.side = other.side
        AND one.kind = other.kind
        AND one.from_depth IS NOT DISTINCT FROM other.from_depth
        AND one.scores < other.scores
    GROUP BY one.scores, other.scores
)
SELECT
    one.level,
    one.model, one.task, one.label,
    other.model AS other_model,
    other.task AS other_task,
    other.label AS other_label,
    shared.overlap,
    shared.scores,
    shared.other_scores
FROM shared
JOIN attributions AS one ON one.scores = shared.scores
JOIN attributions AS other ON other.scores = shared.other_scores;
