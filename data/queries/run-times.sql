-- How long each kind of stage took and how much memory.
SELECT * FROM run_times ORDER BY seconds DESC NULLS LAST, stage;
