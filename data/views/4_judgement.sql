-- How well results hold: what a circuit leaves out, what it could do without, known truths.

-- The model without each circuit, beside the circuit: a complete circuit leaves nothing behind.
--   model            name of the model
--   task             task evaluated on
--   found_on         task the circuit was found on; null if it was imported
--   label            the method with its options
--   level            edge, node or neuron
--   rule             how the circuit was extracted
--   metric           metric evaluated by
--   evaluated_under  what replaced the contributions that are left out
--   size_asked       fraction of the units of its level asked for
--   fraction         fraction of the units achieved
--   n_units          edges, nodes or neurons in the circuit
--   faithfulness     of the circuit: 1 if it does what the model does
--   without          faithfulness of the model without the circuit: 0 if the circuit is complete
--   without_low      lower end of its interval
--   without_high     upper end of its interval
--   circuit, baseline, evaluation  ids; the evaluation is that of the model without the circuit
CREATE VIEW completeness AS
SELECT
    benchmark.model,
    benchmark.task,
    benchmark.found_on,
    benchmark.label,
    benchmark.level,
    benchmark.rule,
    benchmark.metric,
    benchmark.evaluated_under,
    benchmark.size_asked,
    benchmark.fraction,
    benchmark.n_units,
    benchmark.faithfulness,
    evaluations.faithfulness AS without,
    faithfulness_intervals.low AS without_low,
    faithfulness_intervals.high AS without_high,
    benchmark.circuit,
    benchmark.baseline,
    evaluations.evaluation
FROM evaluations
JOIN benchmark
    ON benchmark.circuit = evaluations.circuit AND benchmark.baseline = evaluations.baseline
LEFT JOIN faithfulness_intervals ON faithfulness_intervals.evaluation = evaluations.evaluation
WHERE evaluations.part = 'complement';

-- What every unit of a circuit adds to it: its metric less that without the unit.
--   model            name of the model
--   task             task evaluated on
--   label            the method with its options
--   level            edge, node or neuron
--   rule             how the circuit was extracted
--   size_asked       fraction of the units asked for
--   n_units          edges, nodes or neurons in the circuit
--   metric           metric evaluated by
--   evaluated_under  what replaced the contributions that are left out
--   unit             name of the edge, node or neuron
--   marginal         mean over examples, in the metric's units
--   standard_error   its standard error
--   share            of the metric's distance between the empty circuit and the whole model
--   n_examples       examples
--   circuit, baseline, unit_id  ids
CREATE VIEW unit_marginals AS
SELECT
    circuit_sizes.model,
    clean_and_corrupted.task,
    circuit_sizes.label,
    marginals.level,
    circuit_sizes.rule,
    circuit_sizes.size_asked,
    circuit_sizes.n_units,
    clean_and_corrupted.metric,
    clean_and_corrupted.intervention AS evaluated_under,
    CASE marginals.level
        WHEN 'edge' THEN edges.edge
        WHEN 'node' THEN nodes.node
        ELSE nodes.node || '[' || marginals.unit_id % models.d_model || ']'
    END AS unit,
    marginals.marginal,
    marginals.standard_error,
    marginals.marginal
        / nullif(clean_and_corrupted.clean - clean_and_corrupted.corrupted, 0) AS share,
    marginals.n_examples,
    marginals.circuit,
    marginals.baseline,
    marginals.unit_id
FROM marginals
JOIN circuit_sizes ON circuit_sizes.circuit = marginals.circuit
LEFT JOIN clean_and_corrupted ON clean_and_corrupted.baseline = marginals.baseline
LEFT JOIN models ON models.model = clean_and_corrupted.model_id
LEFT JOIN edges
    ON marginals.level = 'edge'
    AND edges.graph = circuit_sizes.graph AND edges.edge_id = marginals.unit_id
LEFT JOIN nodes
    ON marginals.level <> 'edge'
    AND nodes.graph = circuit_sizes.graph
    AND nodes.node_id = CASE marginals.level
        WHEN 'node' THEN marginals.unit_id ELSE marginals.unit_id // models.d_model
    END;

-- How well scores find circuits that are known by construction.
--   model       name of the model, whose circuit is known
--   task        task scored on
--   method      name of the method
--   label       the method with its options
--   level       edge or node
--   metric      metric whose loss is attributed, if one is
--   n_true      units of the known circuit
--   n_units     units of the graph
--   precision   share of the n_true best units by |score| that are in it
--   recall      share of its units that are among them
--   auroc       area under the receiver operating characteristic
--   auprc       area under precision over recall: average precision
--   seconds     wall time of the attribution
--   n_examples  examples scored
--   scores      id of the set of scores
CREATE VIEW truth_recovery AS
SELECT
    attributions.model,
    attributions.task,
    attributions.method,
    attributions.label,
    attributions.level,
    attributions.metric,
    recoveries.n_true,
    attributions.n_units,
    recoveries.precision,
    recoveries.recall,
    recoveries.auroc,
    recoveries.auprc,
    attributions.seconds,
    attributions.n_examples,
    recoveries.scores
FROM recoveries
JOIN attributions ON attributions.scores = recoveries.scores;

-- How often every unit is among the best when the examples are drawn again.
--   model         name of the model
--   task          task scored on
--   label         the method with its options
--   level         edge, node or neuron
--   unit          name of the edge, node or neuron
--   frequency     share of the draws in which it was among the best
--   n_best        how many count as the best, by |score|
--   n_resamples   how often the examples were drawn
--   rank          1 for the greatest |score| over all examples
--   score         the score over all examples
--   mean_jaccard  mean Jaccard index of a draw's best with those of all examples
--   scores, unit_id  ids
CREATE VIEW unit_stability AS
SELECT
    unit_scores.model,
    unit_scores.task,
    unit_scores.label,
    unit_scores.level,
    unit_scores.unit,
    stability.frequency,
    stability.n_best,
    stability.n_resamples,
    unit_scores.rank,
    unit_scores.score,
    stability.mean_jaccard,
    stability.scores,
    stability.unit_id
FROM stability
JOIN unit_scores
    ON unit_scores.scores = stability.scores AND unit_scores.unit_id = stability.unit_id;
