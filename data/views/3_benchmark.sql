-- How well circuits do.

-- The whole model and its empty circuit: what faithfulness is measured between.
--   model           name of the model
--   task            task it ran on
--   split           split it ran on
--   intervention    what replaces every contribution in the corrupted run
--   metric          the metric
--   clean           mean of the metric on the clean inputs
--   corrupted       mean of the metric of the empty circuit, all of it replaced
--   n_examples      examples
--   baseline, means, model_id, dataset  ids
CREATE VIEW clean_and_corrupted AS
WITH runs AS (
    SELECT
        baseline,
        any_value(model) AS model,
        any_value(dataset) AS dataset,
        any_value(intervention) AS intervention,
        any_value(means) AS means,
        any_value(metric) AS metric,
        max(mean) FILTER (run = 'clean') AS clean,
        max(mean) FILTER (run = 'corrupted') AS corrupted,
        max(n_examples) AS n_examples
    FROM baselines
    GROUP BY baseline
)
SELECT
    models.name AS model,
    datasets.task,
    datasets.split,
    runs.intervention,
    runs.metric,
    runs.clean,
    runs.corrupted,
    runs.n_examples,
    runs.baseline,
    runs.means,
    runs.model AS model_id,
    runs.dataset
FROM runs
LEFT JOIN models ON models.model = runs.model
LEFT JOIN datasets ON datasets.dataset = runs.dataset;

-- Every circuit that was evaluated: a row per model, task, method, options, algorithm, metric, size.
--   model               name of the model
--   task                task it was evaluated on
--   split               split it was evaluated on
--   found_on            task it was found on
--   method              name of the method
--   label               the method with its options, such as EAP-IG-inputs (5, midpoint)
--   steps               points on the path, if it has one
--   quadrature          quadrature rule, if it has one
--   level               edge, node or neuron
--   intervention        what replaced a contribution when units were scored, if anything did
--   evaluated_under     what replaced the contributions outside the circuit
--   attribution_metric  metric whose loss was attributed, if one was
--   algorithm           top-n, threshold or greedy
--   rule                the algorithm with its options, such as top-n (signed)
--   absolute            whether units were ranked by |score|
--   metric              metric it was evaluated by
--   size_asked          fraction of the units of its level asked for
--   units_asked         number of units asked for
--   threshold           least score asked for
--   fraction            fraction of the units achieved after pruning
--   n_units             edges, nodes or neurons in it, by its level
--   n_edges             edges in it
--   n_nodes             nodes in it
--   mean                mean of the metric
--   standard_error      standard error of the mean
--   clean               mean of the metric of the whole model on clean inputs
--   corrupted           mean of the metric of the empty circuit
--   faithfulness        (mean - corrupted) / (clean - corrupted)
--   n_examples          examples evaluated
--   dtype               the model's dtype when its units were scored
--   evaluation, circuit, scores, baseline, model_id, dataset  ids
CREATE VIEW benchmark AS
SELECT
    attributions.model,
    datasets.task,
    datasets.split,
    attributions.task AS found_on,
    attributions.method,
    attributions.label,
    attributions.steps,
    attributions.quadrature,
    circuits.level,
    attributions.intervention,
    evaluations.intervention AS evaluated_under,
    attributions.metric AS attribution_metric,
    circuits.algorithm,
    circuits.rule,
    circuits.absolute,
    evaluations.metric,
    circuits.size_asked,
    circuits.units_asked,
    circuits.threshold,
    circuits.fraction,
    circuits.n_units,
    circuits.n_edges,
    circuits.n_nodes,
    evaluations.mean,
    evaluations.standard_error,
    clean_and_corrupted.clean,
    clean_and_corrupted.corrupted,
    evaluations.faithfulness,
    evaluations.n_examples,
    attributions.dtype,
    evaluations.evaluation,
    evaluations.circuit,
    circuits.scores,
    evaluations.baseline,
    evaluations.model AS model_id,
    evaluations.dataset
FROM evaluations
JOIN circuits ON circuits.circuit = evaluations.circuit
LEFT JOIN attributions ON attributions.scores = circuits.scores
LEFT JOIN datasets ON datasets.dataset = evaluations.dataset
LEFT JOIN clean_and_corrupted ON clean_and_corrupted.baseline = evaluations.baseline;

-- One number for all sizes: a row per extraction, evaluation dataset, metric and intervention.
--
-- An extraction is one rule over one list of sizes. With f the faithfulness and k the fraction of
-- units achieved, by the trapezoid rule over the sizes evaluated, from the smallest to the largest k
-- and no further:
--     CPR = integral of f dk              (1 for a circuit as good as the model at every size)
--     CMD = integral of |1 - f| dk        (0 for a circuit that does just what the model does)
-- and on the log axis, so that small circuits count as much as large ones, sizes of no unit left
-- out, divided by the length of the axis:
--     log CPR = integral of f d(ln k) / (ln k_max - ln k_min), log CMD likewise.
-- All are null if f is null or NaN at any size, or if the axis has no length.
--
--   model               name of the model
--   task                task evaluated on
--   split               split evaluated on
--   found_on            task the circuits were found on
--   method              name of the method
--   label               the method with its options, such as EAP-IG-inputs (5, midpoint)
--   steps               points on the path, if it has one
--   quadrature          quadrature rule, if it has one
--   level               edge, node or neuron
--   intervention        what replaced a contribution when units were scored, if anything did
--   evaluated_under     what replaced the contributions outside the circuit
--   attribution_metric  metric whose loss was attributed, if one was
--   algorithm           top-n, threshold or greedy
--   rule                the algorithm with its options, such as top-n (signed)
--   absolute            whether units were ranked by |score|
--   metric              metric evaluated by
--   cpr                 CPR: more is better
--   cmd                 CMD: less is better
--   log_cpr             CPR on the log axis
--   log_cmd             CMD on the log axis
--   n_sizes             sizes evaluated
--   smallest            smallest fraction achieved
--   largest             largest fraction achieved
--   seconds             wall time of the attribution, its shards included
--   peak_bytes          the most memory the attribution took
--   device              where the attribution ran
--   dtype               the model's dtype
--   n_examples          examples scored
--   n_evaluated         examples evaluated
--   scores, extraction, baseline, model_id, dataset  ids
CREATE VIEW leaderboard AS
WITH points AS (
    SELECT
        benchmark.*,
        extractions.extraction,
        CASE WHEN NOT isnan(faithfulness) THEN faithfulness END AS f,
        lag(f) OVER along AS f_before,
        lag(fraction) OVER along AS k_before,
        fraction - k_before AS step,
        CASE WHEN k_before > 0 THEN ln(fraction / k_before) END AS log_step
    FROM benchmark
    JOIN extractions ON extractions.circuit = benchmark.circuit
    WINDOW along AS (
        PARTITION BY extraction, baseline
        ORDER BY fraction, size_asked, units_asked, benchmark.circuit
    )
),
areas AS (
    SELECT
        extraction, baseline,
        any_value(COLUMNS([
            'scores', 'algorithm', 'rule', 'absolute', 'model', 'task', 'split', 'found_on', 'method',
            'label', 'steps', 'quadrature', 'level', 'intervention', 'evaluated_under',
            'attribution_metric', 'metric', 'dataset', 'model_id'
        ])),
        count(*) AS n_sizes,
        count(f) = count(*) AS is_whole,
        min(fraction) AS smallest,
        max(fraction) AS largest,
        max(n_examples) AS n_evaluated,
        sum(step) AS length,
        sum(log_step) AS log_length,
        sum(step * (f + f_before) / 2) AS f_area,
        sum(step * (abs(1 - f) + abs(1 - f_before)) / 2) AS gap_area,
        sum(log_step * (f + f_before) / 2) AS f_log_area,
        sum(log_step * (abs(1 - f) + abs(1 - f_before)) / 2) AS gap_log_area
    FROM points
    GROUP BY extraction, baseline
)
SELECT
    areas.model,
    areas.task,
    areas.split,
    areas.found_on,
    areas.method,
    areas.label,
    areas.steps,
    areas.quadrature,
    areas.level,
    areas.intervention,
    areas.evaluated_under,
    areas.attribution_metric,
    areas.algorithm,
    areas.rule,
    areas.absolute,
    areas.metric,
    CASE WHEN is_whole AND length > 0 THEN f_area END AS cpr,
    CASE WHEN is_whole AND length > 0 THEN gap_area END AS cmd,
    CASE WHEN is_whole AND log_length > 0 THEN f_log_area / log_length END AS log_cpr,
    CASE WHEN is_whole AND log_length > 0 THEN gap_log_area / log_length END AS log_cmd,
    areas.n_sizes,
    areas.smallest,
    areas.largest,
    attributions.seconds,
    attributions.peak_bytes,
    attributions.device,
    attributions.dtype,
    attributions.n_examples,
    areas.n_evaluated,
    areas.scores,
    areas.extraction,
    areas.baseline,
    areas.model_id,
    areas.dataset
FROM areas
LEFT JOIN attributions ON attributions.scores = areas.scores;

-- Every circuit on every example, beside the whole model on it.
--   model           name of the model
--   task            task evaluated on
--   method          name of the method
--   label           the method with its options
--   steps           points on the path, if it has one
--   quadrature      quadrature rule, if it has one
--   algorithm       top-n, threshold or greedy
--   metric          the metric
--   evaluated_under  what replaced the contributions outside the circuit
--   size_asked      fraction of the units of its level asked for
--   n_edges         edges in the circuit
--   example_id      position of the example in its dataset
--   clean_text      clean text
--   corrupted_text  corrupted text
--   value           the metric of the circuit
--   clean           the metric of the whole model on the clean text
--   corrupted       the metric of the empty circuit
--   faithfulness    (value - corrupted) / (clean - corrupted); null where clean = corrupted
--   evaluation, circuit, dataset  ids
CREATE VIEW example_faithfulness AS
WITH model_values AS (
    SELECT
        baseline,
        example_id,
        max(value) FILTER (run = 'clean') AS clean,
        max(value) FILTER (run = 'corrupted') AS corrupted
    FROM baseline_values
    GROUP BY baseline, example_id
)
SELECT
    benchmark.model,
    benchmark.task,
    benchmark.method,
    benchmark.label,
    benchmark.steps,
    benchmark.quadrature,
    benchmark.algorithm,
    benchmark.metric,
    benchmark.evaluated_under,
    benchmark.size_asked,
    benchmark.n_edges,
    example_values.example_id,
    examples.clean AS clean_text,
    examples.corrupted AS corrupted_text,
    example_values.value,
    model_values.clean,
    model_values.corrupted,
    (example_values.value - model_values.corrupted)
        / nullif(model_values.clean - model_values.corrupted, 0) AS faithfulness,
    benchmark.evaluation,
    benchmark.circuit,
    benchmark.dataset
FROM example_values
JOIN benchmark ON benchmark.evaluation = example_values.evaluation
LEFT JOIN examples
    ON examples.dataset = benchmark.dataset AND examples.example_id = example_values.example_id
LEFT JOIN model_values
    ON model_values.baseline = benchmark.baseline
    AND model_values.example_id = example_values.example_id;
