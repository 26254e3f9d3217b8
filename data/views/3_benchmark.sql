-- How well circuits do.

-- The whole model and its empty circuit: what faithfulness is measured between.
--   model           name of the model, with how it was held: gpt2 (bfloat16)
--   task            task it ran on
--   split           split it ran on
--   intervention    what replaces every contribution in the corrupted run
--   means_over      examples that the means are over, if means replace it
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
),
averaged AS (
    SELECT means, any_value(datasets.n_examples) AS means_over
    FROM mean_activations
    JOIN datasets ON datasets.dataset = mean_activations.dataset
    GROUP BY means
)
SELECT
    models.name
        || CASE WHEN stages.dtype <> 'float32' THEN ' (' || stages.dtype || ')' ELSE '' END AS model,
    datasets.task,
    datasets.split,
    runs.intervention,
    averaged.means_over,
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
LEFT JOIN datasets ON datasets.dataset = runs.dataset
LEFT JOIN stages ON stages.key = runs.baseline
LEFT JOIN averaged ON averaged.means = runs.means;

-- The uncertainty of every faithfulness, from the most resamples that were drawn.
--   evaluation      id of the evaluation
--   standard_error  standard error of the faithfulness
--   low             lower end of its interval
--   high            upper end of its interval
--   n_resamples     resamples of the examples
--   confidence      share of the resamples within the interval
CREATE VIEW faithfulness_intervals AS
SELECT DISTINCT ON (evaluation)
    evaluation, standard_error, low, high, n_resamples, confidence
FROM intervals
ORDER BY evaluation, n_resamples DESC, confidence DESC, seed;

-- Every circuit that was evaluated: a row per model, task, method, options, algorithm, metric, size.
--   model               name of the model
--   task                task it was evaluated on
--   split               split it was evaluated on
--   found_on            task it was found on; null if it was imported
--   method              name of the method
--   label               the method with its options, such as EAP-IG-inputs (5, midpoint)
--   steps               points on the path, if it has one
--   quadrature          quadrature rule, if it has one
--   level               edge, node or neuron
--   intervention        what replaced a contribution when units were scored, if anything did
--   evaluated_under     what replaced the contributions outside the circuit
--   means_over          examples that its means are over, if means replaced them
--   attribution_metric  metric whose loss was attributed, if one was
--   algorithm           top-n, threshold or greedy; imported for a file's own circuit
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
--   faithfulness_standard_error  its standard error, over resamples of the examples
--   faithfulness_low    lower end of its interval
--   faithfulness_high   upper end of its interval
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
    clean_and_corrupted.means_over,
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
    faithfulness_intervals.standard_error AS faithfulness_standard_error,
    faithfulness_intervals.low AS faithfulness_low,
    faithfulness_intervals.high AS faithfulness_high,
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
LEFT JOIN clean_and_corrupted ON clean_and_corrupted.baseline = evaluations.baseline
LEFT JOIN faithfulness_intervals ON faithfulness_intervals.evaluation = evaluations.evaluation
WHERE evaluations.part = 'circuit';

-- One number for all sizes: a row per extraction, evaluation dataset, metric and intervention.
--
-- An extraction is one rule over one list of sizes. With f the faithfulness and k the fraction of
-- units achieved, by the trapezoid rule over the sizes evaluated, from the smallest to the largest k
-- and no further:
--     CPR = integral of f dk              (1 for a circuit as good as the model at every size)
--     CMD = integral of |1 - f| dk        (0 for a circuit that does just what the model does)
-- and on the log axis, so that small circuits count as much as large ones, divided by the length of
-- the axis:
--     log CPR = integral of f d(ln k) / (ln k_max - ln k_min), log CMD likewise;
-- null if a circuit is empty, which has no place on that axis.
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
--   means_over          examples that its means are over, if means replaced them
--   attribution_metric  metric whose loss was attributed, if one was
--   algorithm           top-n, threshold or greedy
--   rule                the algorithm with its options, such as top-n (signed)
--   absolute            whether units were ranked by |score|
--   metric              metric evaluated by
--   cpr                 CPR: more is better
--   cmd                 CMD: less is better
--   log_cpr             CPR on the log axis
--   log_cmd             CMD on the log axis
--   cpr_low             lower end of the interval of CPR, over resamples of the examples
--   cpr_high            its upper end
--   cmd_low             lower end of the interval of CMD
--   cmd_high            its upper end
--   log_cpr_low         lower end of the interval of CPR on the log axis
--   log_cpr_high        its upper end
--   log_cmd_low         lower end of the interval of CMD on the log axis
--   log_cmd_high        its upper end
--   n_resamples         resamples that the intervals rest on
--   confidence          share of the resamples within them
--   n_sizes             sizes evaluated
--   smallest            smallest fraction achieved
--   largest             largest fraction achieved
--   comparable          whether the sizes span three quarters or more of the widest range among rows
--                       of the same model, tasks, split, metric and intervention, and reach the
--                       whole model if one of them does: areas over less say little beside the
--                       others; null where there is no area
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
            'label', 'steps', 'quadrature', 'level', 'intervention', 'evaluated_under', 'means_over',
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
),
most AS (
    SELECT DISTINCT ON (extraction, baseline, axis) *
    FROM curves
    ORDER BY extraction, baseline, axis, n_resamples DESC, confidence DESC, seed
),
ends AS (
    SELECT
        extraction, baseline,
        max(cpr_low) FILTER (axis = 'linear') AS cpr_low,
        max(cpr_high) FILTER (axis = 'linear') AS cpr_high,
        max(cmd_low) FILTER (axis = 'linear') AS cmd_low,
        max(cmd_high) FILTER (axis = 'linear') AS cmd_high,
        max(cpr_low) FILTER (axis = 'log') AS log_cpr_low,
        max(cpr_high) FILTER (axis = 'log') AS log_cpr_high,
        max(cmd_low) FILTER (axis = 'log') AS log_cmd_low,
        max(cmd_high) FILTER (axis = 'log') AS log_cmd_high,
        max(n_resamples) AS n_resamples,
        max(confidence) AS confidence
    FROM most
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
    areas.means_over,
    areas.attribution_metric,
    areas.algorithm,
    areas.rule,
    areas.absolute,
    areas.metric,
    CASE WHEN is_whole AND length > 0 THEN f_area END AS cpr,
    CASE WHEN is_whole AND length > 0 THEN gap_area END AS cmd,
    CASE WHEN is_whole AND smallest > 0 AND log_length > 0 THEN f_log_area / log_length END
        AS log_cpr,
    CASE WHEN is_whole AND smallest > 0 AND log_length > 0 THEN gap_log_area / log_length END
        AS log_cmd,
    ends.cpr_low,
    ends.cpr_high,
    ends.cmd_low,
    ends.cmd_high,
    ends.log_cpr_low,
    ends.log_cpr_high,
    ends.log_cmd_low,
    ends.log_cmd_high,
    ends.n_resamples,
    ends.confidence,
    areas.n_sizes,
    areas.smallest,
    areas.largest,
    CASE WHEN is_whole AND length > 0 THEN
        length >= 0.75 * max(length) OVER alike AND (largest = 1 OR max(largest) OVER alike < 1)
    END AS comparable,
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
LEFT JOIN attributions ON attributions.scores = areas.scores
LEFT JOIN ends ON ends.extraction = areas.extraction AND ends.baseline = areas.baseline
WINDOW alike AS (
    PARTITION BY
        areas.model, areas.task, areas.split, areas.found_on, areas.metric,
        areas.evaluated_under, areas.means_over
);

-- Every circuit on every example, beside the whole model on it.
--   model           name of the model
--   task            task evaluated on
--   method          name of the method
--   label           the method with its options
--   steps           points on the path, if it has one
--   quadrature      quadrature rule, if it has one
--   algorithm       top-n, threshold or greedy
--   rule            the algorithm with its options, such as top-n (signed)
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
    benchmark.rule,
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
