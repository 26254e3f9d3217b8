-- The stages that failed and have not succeeded since, with the reason.
SELECT stage, cell, error, finished_at, key
FROM stages
WHERE status = 'failed'
ORDER BY finished_at DESC, stage, cell, key;
