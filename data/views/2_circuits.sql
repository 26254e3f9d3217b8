-- Scores and circuits with the names of what they are of.

-- The attributions: one row a set of scores.
--   scores        id of the set of scores
--   model         name of the model, with how it was held: gpt2 (bfloat16)
--   task          task scored on
--   split         split scored on
--   method        name of the method
--   label         the method with its options, such as EAP-IG-inputs (5, midpoint)
--   steps         points on the path, if it has one
--   quadrature    quadrature rule, if it has one
--   scope         component or all, for methods that have a choice
--   seed          seed of the numbers drawn, if any were
--   restriction   the units it was restricted to, if it was
--   level         edge, node or neuron
--   intervention  what replaces a contribution, if anything does
--   metric        metric whose loss is attributed, if one is
--   n_examples    examples scored
--   n_scores      number of scores
--   n_units       edges, nodes or neurons of the graph, scored or not
--   n_edges       edges of the graph
--   n_kv_heads    k readers per layer of the graph
--   seconds       wall time of the attribution, its shards included
--   peak_bytes    the most memory it took
--   device        where it ran
--   dtype         the model's dtype
--   model_id, graph, dataset, method_id  ids
CREATE VIEW attributions AS
WITH sets AS (
    SELECT
        scores,
        any_value(model) AS model,
        any_value(graph) AS graph,
        any_value(dataset) AS dataset,
        any_value(method) AS method,
        any_value(level) AS level,
        max(n_examples) AS n_examples,
        count(score) AS n_scores,
        count(*) AS n_units
    FROM stored_scores
    GROUP BY scores
)
SELECT
    sets.scores,
    models.name || coalesce(
        ' (' || nullif(concat_ws(
            ', ',
            CASE WHEN stages.dtype <> 'float32' THEN stages.dtype END,
            CASE WHEN graphs.n_kv_heads < graphs.n_heads THEN 'grouped' END
        ), '') || ')',
        ''
    ) AS model,
    datasets.task,
    datasets.split,
    methods.name AS method,
    methods.label,
    methods.steps,
    methods.quadrature,
    methods.scope,
    methods.seed,
    methods.restriction,
    sets.level,
    methods.intervention,
    methods.metric,
    sets.n_examples,
    sets.n_scores,
    sets.n_units,
    graphs.n_edges,
    graphs.n_kv_heads,
    stages.total_seconds AS seconds,
    stages.peak_bytes,
    stages.device,
    stages.dtype,
    sets.model AS model_id,
    sets.graph,
    sets.dataset,
    sets.method AS method_id
FROM sets
LEFT JOIN models ON models.model = sets.model
LEFT JOIN graphs ON graphs.graph = sets.graph
LEFT JOIN datasets ON datasets.dataset = sets.dataset
LEFT JOIN methods ON methods.method = sets.method
LEFT JOIN stages ON stages.key = sets.scores;

-- The scores of all levels by id, ranked within their set.
--   scores, model, graph, dataset, method  ids
--   level           edge, node or neuron
--   unit_id         id of the unit in its graph
--   score           the score; positive means that the unit helps the task; null if not scored
--   standard_error  standard error of the score
--   n_examples      examples scored
--   rank            1 for the greatest |score| of the set; ties by order, not scored last
CREATE VIEW ranked_scores AS
SELECT
    *,
    row_number() OVER (
        PARTITION BY scores, level
        ORDER BY CASE WHEN NOT isnan(score) THEN abs(score) END DESC NULLS LAST, unit_id
    ) AS rank
FROM stored_scores;

-- The scores of edges, named and ranked.
--   scores          id of the set of scores
--   model           name of the model
--   task            task scored on
--   method          name of the method
--   label           the method with its options
--   steps           points on the path, if it has one
--   quadrature      quadrature rule, if it has one
--   rank            1 for the greatest |score| of the set; ties by edge order, not scored last
--   edge            name of the edge
--   writer          name of the writer
--   reader          name of the reader
--   kind            q, k, v, mlp or logits
--   score           the score; positive means that the edge helps the task; null if not scored
--   standard_error  standard error of the score
--   n_examples      examples scored
--   edge_id         id of the edge in its graph
CREATE VIEW edge_scores AS
SELECT
    ranked.scores,
    attributions.model,
    attributions.task,
    attributions.method,
    attributions.label,
    attributions.steps,
    attributions.quadrature,
    ranked.rank,
    edges.edge,
    edges.writer,
    edges.reader,
    edges.kind,
    ranked.score,
    ranked.standard_error,
    ranked.n_examples,
    ranked.unit_id AS edge_id
FROM ranked_scores AS ranked
JOIN attributions ON attributions.scores = ranked.scores
LEFT JOIN edges ON edges.graph = ranked.graph AND edges.edge_id = ranked.unit_id
WHERE ranked.level = 'edge';

-- The scores of nodes, named and ranked.
--   scores          id of the set of scores
--   model           name of the model
--   task            task scored on
--   method          name of the method
--   label           the method with its options
--   steps           points on the path, if it has one
--   quadrature      quadrature rule, if it has one
--   rank            1 for the greatest |score| of the set; ties by node order, not scored last
--   node            name of the node
--   kind            input, head or mlp
--   layer           layer; -1 for input
--   head            head; null if it is none
--   score           the score; positive means that the node helps the task; null if not scored
--   standard_error  standard error of the score
--   n_examples      examples scored
--   node_id         id of the node in its graph
CREATE VIEW node_scores AS
SELECT
    ranked.scores,
    attributions.model,
    attributions.task,
    attributions.method,
    attributions.label,
    attributions.steps,
    attributions.quadrature,
    ranked.rank,
    nodes.node,
    nodes.kind,
    nodes.layer,
    nodes.head,
    ranked.score,
    ranked.standard_error,
    ranked.n_examples,
    ranked.unit_id AS node_id
FROM ranked_scores AS ranked
JOIN attributions ON attributions.scores = ranked.scores
LEFT JOIN nodes ON nodes.graph = ranked.graph AND nodes.node_id = ranked.unit_id
WHERE ranked.level = 'node';

-- The scores of neurons (output dimensions of nodes), named and ranked.
--   scores          id of the set of scores
--   model           name of the model
--   task            task scored on
--   method          name of the method
--   label           the method with its options
--   steps           points on the path, if it has one
--   quadrature      quadrature rule, if it has one
--   rank            1 for the greatest |score| of the set; ties by order, not scored last
--   neuron          name of the neuron, such as a0.h1[17]
--   node            name of its node
--   dimension       output dimension of the node, from 0
--   kind            input, head or mlp
--   layer           layer; -1 for input
--   score           the score; positive means that the neuron helps the task; null if not scored
--   standard_error  standard error of the score
--   n_examples      examples scored
--   neuron_id       id of the neuron in its graph: node_id * d_model + dimension
--   node_id         id of its node in its graph
CREATE VIEW neuron_scores AS
WITH placed AS (
    SELECT
        ranked.*,
        CAST(ranked.unit_id // models.d_model AS INTEGER) AS node_id,
        CAST(ranked.unit_id % models.d_model AS INTEGER) AS dimension
    FROM ranked_scores AS ranked
    LEFT JOIN models ON models.model = ranked.model
    WHERE ranked.level = 'neuron'
)
SELECT
    placed.scores,
    attributions.model,
    attributions.task,
    attributions.method,
    attributions.label,
    attributions.steps,
    attributions.quadrature,
    placed.rank,
    nodes.node || '[' || placed.dimension || ']' AS neuron,
    nodes.node,
    placed.dimension,
    nodes.kind,
    nodes.layer,
    placed.score,
    placed.standard_error,
    placed.n_examples,
    placed.unit_id AS neuron_id,
    placed.node_id
FROM placed
JOIN attributions ON attributions.scores = placed.scores
LEFT JOIN nodes ON nodes.graph = placed.graph AND nodes.node_id = placed.node_id;

-- The scores of all levels: edges, nodes and neurons by name.
--   scores          id of the set of scores
--   model           name of the model
--   task            task scored on
--   method          name of the method
--   label           the method with its options
--   level           edge, node or neuron
--   rank            1 for the greatest |score| of the set; ties by order, not scored last
--   unit            name of the edge, node or neuron
--   kind            of an edge q, k, v, mlp or logits; of others input, head or mlp
--   score           the score; positive means that the unit helps the task; null if not scored
--   standard_error  standard error of the score
--   n_examples      examples scored
--   unit_id         id of the unit in its graph
CREATE VIEW unit_scores AS
SELECT
    scores, model, task, method, label, 'edge' AS level, rank, edge AS unit, kind,
    score, standard_error, n_examples, edge_id AS unit_id
FROM edge_scores
UNION ALL
SELECT
    scores, model, task, method, label, 'node', rank, node, kind,
    score, standard_error, n_examples, node_id
FROM node_scores
UNION ALL
SELECT
    scores, model, task, method, label, 'neuron', rank, neuron, kind,
    score, standard_error, n_examples, neuron_id
FROM neuron_scores;

-- The circuits, one row each, with what they were extracted from and how large they are.
--   circuit      id of the circuit
--   model        name of the model
--   task         task it was found on
--   method       name of the method
--   label        the method with its options
--   steps        points on the path, if it has one
--   quadrature   quadrature rule, if it has one
--   level        edge, node or neuron
--   algorithm    top-n, threshold or greedy
--   rule         the algorithm with its options, such as top-n (signed)
--   absolute     whether units were ranked by |score|
--   size_asked   fraction of the units of its level asked for
--   units_asked  number of units asked for
--   threshold    least score asked for
--   fraction     fraction of the units achieved after pruning
--   n_units      edges, nodes or neurons in it, by its level
--   n_edges      edges in it
--   n_nodes      nodes in it
--   scores, graph  ids
CREATE VIEW circuit_sizes AS
SELECT
    circuits.circuit,
    attributions.model,
    attributions.task,
    attributions.method,
    attributions.label,
    attributions.steps,
    attributions.quadrature,
    circuits.level,
    circuits.algorithm,
    circuits.rule,
    circuits.absolute,
    circuits.size_asked,
    circuits.units_asked,
    circuits.threshold,
    circuits.fraction,
    circuits.n_units,
    circuits.n_edges,
    circuits.n_nodes,
    circuits.scores,
    circuits.graph
FROM circuits
LEFT JOIN attributions ON attributions.scores = circuits.scores;

-- The edges of circuits of any level, named, with their scores where edges were scored.
--   circuit         id of the circuit
--   model           name of the model
--   task            task it was found on
--   method          name of the method
--   label           the method with its options
--   steps           points on the path, if it has one
--   quadrature      quadrature rule, if it has one
--   algorithm       top-n, threshold or greedy
--   size_asked      fraction of the units of its level asked for
--   n_edges         edges in the circuit
--   edge            name of the edge
--   writer          name of the writer
--   reader          name of the reader
--   kind            q, k, v, mlp or logits
--   score           score of the edge; null in circuits of nodes and of neurons
--   standard_error  standard error of the score
--   edge_id         id of the edge in its graph
CREATE VIEW circuit_edges AS
SELECT
    members.circuit,
    circuit_sizes.model,
    circuit_sizes.task,
    circuit_sizes.method,
    circuit_sizes.label,
    circuit_sizes.steps,
    circuit_sizes.quadrature,
    circuit_sizes.algorithm,
    circuit_sizes.size_asked,
    circuit_sizes.n_edges,
    edges.edge,
    edges.writer,
    edges.reader,
    edges.kind,
    stored_scores.score,
    stored_scores.standard_error,
    members.edge_id
FROM members
JOIN circuit_sizes ON circuit_sizes.circuit = members.circuit
LEFT JOIN edges ON edges.graph = circuit_sizes.graph AND edges.edge_id = members.edge_id
LEFT JOIN stored_scores
    ON stored_scores.scores = circuit_sizes.scores
    AND stored_scores.unit_id = members.edge_id
    AND stored_scores.level = 'edge';

-- The nodes of circuits of any level, named, with their scores where nodes were scored.
--   circuit         id of the circuit
--   model           name of the model
--   task            task it was found on
--   method          name of the method
--   label           the method with its options
--   level           edge, node or neuron
--   algorithm       top-n, threshold or greedy
--   size_asked      fraction of the units of its level asked for
--   n_nodes         nodes in the circuit
--   node            name of the node
--   kind            input, head, mlp or logits
--   layer           layer; -1 for input
--   score           score of the node; null in circuits of edges and of neurons
--   standard_error  standard error of the score
--   node_id         id of the node in its graph
CREATE VIEW circuit_nodes AS
WITH touched AS (  -- in a pruned circuit every node but logits writes to an edge
    SELECT DISTINCT members.circuit, circuits.graph, edges.writer AS node
    FROM members
    JOIN circuits ON circuits.circuit = members.circuit
    JOIN edges ON edges.graph = circuits.graph AND edges.edge_id = members.edge_id
    UNION
    SELECT members.circuit, circuits.graph, edges.reader
    FROM members
    JOIN circuits ON circuits.circuit = members.circuit
    JOIN edges ON edges.graph = circuits.graph AND edges.edge_id = members.edge_id
    WHERE edges.kind = 'logits'
)
SELECT
    touched.circuit,
    circuit_sizes.model,
    circuit_sizes.task,
    circuit_sizes.method,
    circuit_sizes.label,
    circuit_sizes.level,
    circuit_sizes.algorithm,
    circuit_sizes.size_asked,
    circuit_sizes.n_nodes,
    nodes.node,
    nodes.kind,
    nodes.layer,
    stored_scores.score,
    stored_scores.standard_error,
    nodes.node_id
FROM touched
JOIN circuit_sizes ON circuit_sizes.circuit = touched.circuit
JOIN nodes ON nodes.graph = touched.graph AND nodes.node = touched.node
LEFT JOIN stored_scores
    ON stored_scores.scores = circuit_sizes.scores
    AND stored_scores.unit_id = nodes.node_id
    AND stored_scores.level = 'node';

-- The neurons of circuits of neuron level, named, with their scores.
--   circuit         id of the circuit
--   model           name of the model
--   task            task it was found on
--   method          name of the method
--   label           the method with its options
--   algorithm       top-n or threshold
--   size_asked      fraction of the neurons asked for
--   n_units         neurons in the circuit
--   neuron          name of the neuron, such as a0.h1[17]
--   node            name of its node
--   dimension       output dimension of the node, from 0
--   score           score of the neuron
--   standard_error  standard error of the score
--   node_id         id of the node in its graph
CREATE VIEW circuit_neurons AS
WITH listed AS (
    SELECT circuit, node_id, unnest(dimensions) AS dimension FROM member_neurons
)
SELECT
    listed.circuit,
    circuit_sizes.model,
    circuit_sizes.task,
    circuit_sizes.method,
    circuit_sizes.label,
    circuit_sizes.algorithm,
    circuit_sizes.size_asked,
    circuit_sizes.n_units,
    nodes.node || '[' || listed.dimension || ']' AS neuron,
    nodes.node,
    listed.dimension,
    stored_scores.score,
    stored_scores.standard_error,
    listed.node_id
FROM listed
JOIN circuit_sizes ON circuit_sizes.circuit = listed.circuit
LEFT JOIN attributions ON attributions.scores = circuit_sizes.scores
LEFT JOIN models ON models.model = attributions.model_id
LEFT JOIN nodes ON nodes.graph = circuit_sizes.graph AND nodes.node_id = listed.node_id
LEFT JOIN stored_scores
    ON stored_scores.scores = circuit_sizes.scores
    AND stored_scores.unit_id = listed.node_id * models.d_model + listed.dimension
    AND stored_scores.level = 'neuron';

-- Circuits of one graph, level and size asked for, two by two, and the edges they share.
--   size_asked       fraction of the units of their level asked for, the same in both
--   units_asked      number of units asked for, the same in both
--   level            edge, node or neuron, the same in both
--   model            name of the model of the first
--   task             task of the first
--   method           method of the first
--   label            method of the first with its options
--   algorithm        algorithm of the first
--   rule             algorithm of the first with its options
--   other_model      name of the model of the second
--   other_task       task of the second
--   other_method     method of the second
--   other_label      method of the second with its options
--   other_algorithm  algorithm of the second
--   other_rule       algorithm of the second with its options
--   n_shared         edges in both
--   n_either         edges in at least one
--   jaccard          n_shared / n_either; null if both are empty
--   circuit, other_circuit  ids, the lesser one first: each pair is there once
CREATE VIEW shared_edges AS
WITH pairs AS (
    SELECT
        coalesce(one.size_asked, other.size_asked) AS size_asked,
        coalesce(one.units_asked, other.units_asked) AS units_asked,
        one.level,
        one.model, one.task, one.method, one.label, one.algorithm, one.rule,
        other.model AS other_model,
        other.task AS other_task,
        other.method AS other_method,
        other.label AS other_label,
        other.algorithm AS other_algorithm,
        other.rule AS other_rule,
        one.n_edges + other.n_edges AS n_both_counts,
        one.circuit,
        other.circuit AS other_circuit
    FROM circuit_sizes AS one
    JOIN circuit_sizes AS other
        ON one.graph = other.graph
        AND one.level = other.level
        AND one.circuit < other.circuit
        AND one.size_asked IS NOT DISTINCT FROM other.size_asked
        AND one.units_asked IS NOT DISTINCT FROM other.units_asked
    WHERE one.size_asked IS NOT NULL OR one.units_asked IS NOT NULL
),
shared AS (
    SELECT pairs.circuit, pairs.other_circuit, count(*) AS n_shared
    FROM pairs
    JOIN members AS one ON one.circuit = pairs.circuit
    JOIN members AS other
        ON other.circuit = pairs.other_circuit AND other.edge_id = one.edge_id
    GROUP BY pairs.circuit, pairs.other_circuit
)
SELECT
    size_asked, units_asked, level,
    model, task, method, label, algorithm, rule,
    other_model, other_task, other_method, other_label, other_algorithm, other_rule,
    coalesce(n_shared, 0) AS n_shared,
    n_both_counts - coalesce(n_shared, 0) AS n_either,
    coalesce(n_shared, 0) / nullif(n_both_counts - coalesce(n_shared, 0), 0) AS jaccard,
    circuit, other_circuit
FROM pairs LEFT JOIN shared USING (circuit, other_circuit);
