-- Scores and circuits with the names of what they are of.

-- The attributions: one row a set of scores.
--   scores        id of the set of scores
--   model         name of the model
--   task          task scored on
--   split         split scored on
--   method        name of the method
--   steps         points on the path, if it has one
--   quadrature    quadrature rule, if it has one
--   level         edge, node or neuron
--   intervention  what replaces a contribution
--   metric        metric whose loss is attributed
--   n_examples    examples scored
--   n_scores      number of scores
--   n_edges       edges of the graph
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
        count(*) AS n_scores
    FROM stored_scores
    GROUP BY scores
)
SELECT
    sets.scores,
    models.name AS model,
    datasets.task,
    datasets.split,
    methods.name AS method,
    methods.steps,
    methods.quadrature,
    sets.level,
    methods.intervention,
    methods.metric,
    sets.n_examples,
    sets.n_scores,
    graphs.n_edges,
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

-- The scores of edges, named and ranked.
--   scores          id of the set of scores
--   model           name of the model
--   task            task scored on
--   method          name of the method
--   steps           points on the path, if it has one
--   quadrature      quadrature rule, if it has one
--   rank            1 for the greatest |score| of the set; ties by edge order, NaN last
--   edge            name of the edge
--   writer          name of the writer
--   reader          name of the reader
--   kind            q, k, v, mlp or logits
--   score           the score; positive means that the edge helps the task
--   standard_error  standard error of the score
--   n_examples      examples scored
--   edge_id         id of the edge in its graph
CREATE VIEW edge_scores AS
WITH ranked AS (
    SELECT
        *,
        row_number() OVER (
            PARTITION BY scores
            ORDER BY CASE WHEN NOT isnan(score) THEN abs(score) END DESC NULLS LAST, edge_id
        ) AS rank
    FROM stored_scores
    WHERE level = 'edge'
)
SELECT
    ranked.scores,
    attributions.model,
    attributions.task,
    attributions.method,
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
    ranked.edge_id
FROM ranked
JOIN attributions ON attributions.scores = ranked.scores
LEFT JOIN edges ON edges.graph = ranked.graph AND edges.edge_id = ranked.edge_id;

-- The circuits, one row each, with what they were extracted from and how large they are.
--   circuit      id of the circuit
--   model        name of the model
--   task         task it was found on
--   method       name of the method
--   steps        points on the path, if it has one
--   quadrature   quadrature rule, if it has one
--   level        edge, node or neuron
--   algorithm    top-n, threshold or greedy
--   absolute     whether edges were ranked by |score|
--   size_asked   fraction of the edges asked for
--   edges_asked  number of edges asked for
--   threshold    least score asked for
--   fraction     fraction of the edges achieved after pruning
--   n_edges      edges in it
--   n_nodes      nodes in it
--   scores, graph  ids
CREATE VIEW circuit_sizes AS
SELECT
    circuits.circuit,
    attributions.model,
    attributions.task,
    attributions.method,
    attributions.steps,
    attributions.quadrature,
    circuits.level,
    circuits.algorithm,
    circuits.absolute,
    circuits.size_asked,
    circuits.edges_asked,
    circuits.threshold,
    circuits.fraction,
    circuits.n_edges,
    circuits.n_nodes,
    circuits.scores,
    circuits.graph
FROM circuits
LEFT JOIN attributions ON attributions.scores = circuits.scores;

-- The edges of circuits, named, with their scores.
--   circuit         id of the circuit
--   model           name of the model
--   task            task it was found on
--   method          name of the method
--   steps           points on the path, if it has one
--   quadrature      quadrature rule, if it has one
--   algorithm       top-n, threshold or greedy
--   size_asked      fraction of the edges asked for
--   n_edges         edges in the circuit
--   edge            name of the edge
--   writer          name of the writer
--   reader          name of the reader
--   kind            q, k, v, mlp or logits
--   score           score of the edge
--   standard_error  standard error of the score
--   edge_id         id of the edge in its graph
CREATE VIEW circuit_edges AS
SELECT
    members.circuit,
    circuit_sizes.model,
    circuit_sizes.task,
    circuit_sizes.method,
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
    AND stored_scores.edge_id = members.edge_id
    AND stored_scores.level = 'edge';

-- Circuits of one graph and one size asked for, two by two, and the edges they share.
--   size_asked       fraction of the edges asked for, the same in both
--   edges_asked      number of edges asked for, the same in both
--   model            name of the model of the first
--   task             task of the first
--   method           method of the first
--   algorithm        algorithm of the first
--   other_model      name of the model of the second
--   other_task       task of the second
--   other_method     method of the second
--   other_algorithm  algorithm of the second
--   n_shared         edges in both
--   n_either         edges in at least one
--   jaccard          n_shared / n_either; null if both are empty
--   circuit, other_circuit  ids, the lesser one first: each pair is there once
CREATE VIEW shared_edges AS
WITH pairs AS (
    SELECT
        coalesce(one.size_asked, other.size_asked) AS size_asked,
        coalesce(one.edges_asked, other.edges_asked) AS edges_asked,
        one.model, one.task, one.method, one.algorithm,
        other.model AS other_model,
        other.task AS other_task,
        other.method AS other_method,
        other.algorithm AS other_algorithm,
        one.n_edges + other.n_edges AS n_both_counts,
        one.circuit,
        other.circuit AS other_circuit
    FROM circuit_sizes AS one
    JOIN circuit_sizes AS other
        ON one.graph = other.graph
        AND one.level = other.level
        AND one.circuit < other.circuit
        AND one.size_asked IS NOT DISTINCT FROM other.size_asked
        AND one.edges_asked IS NOT DISTINCT FROM other.edges_asked
    WHERE one.size_asked IS NOT NULL OR one.edges_asked IS NOT NULL
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
    size_asked, edges_asked,
    model, task, method, algorithm,
    other_model, other_task, other_method, other_algorithm,
    coalesce(n_shared, 0) AS n_shared,
    n_both_counts - coalesce(n_shared, 0) AS n_either,
    coalesce(n_shared, 0) / nullif(n_both_counts - coalesce(n_shared, 0), 0) AS jaccard,
    circuit, other_circuit
FROM pairs LEFT JOIN shared USING (circuit, other_circuit);
