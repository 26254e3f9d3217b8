-- The edges of one circuit, greatest |score| first.
-- $circuit: id of the circuit, or how it begins; the query circuit-sizes lists them
SELECT edge, kind, score, standard_error, circuit
FROM circuit_edges
WHERE starts_with(circuit, $circuit)
ORDER BY circuit, abs(score) DESC NULLS LAST, edge_id;
