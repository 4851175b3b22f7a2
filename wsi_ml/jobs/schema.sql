-- Background work. `number` is the order of arrival. No clock decides anything: `beat` is a counter that the worker of a
-- running job raises, and whoever sees it stand still for too long takes the job back. `fence` counts the claims of a job.
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    key TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('predict')),
    slide_id TEXT NOT NULL,
    version TEXT NOT NULL,
    model TEXT NOT NULL,
    region TEXT CHECK (region IS NULL OR json_valid(region)),
    parameters TEXT NOT NULL CHECK (json_valid(parameters)),
    preview INTEGER NOT NULL CHECK (preview IN (0, 1)),
    priority INTEGER NOT NULL CHECK (priority BETWEEN -100 AND 100),
    lane TEXT NOT NULL CHECK (lane IN ('slide', 'quick')),
    state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'done', 'failed', 'cancelled')),
    cancelling INTEGER NOT NULL DEFAULT 0 CHECK (cancelling IN (0, 1) AND (cancelling = 0 OR state = 'running')),
    tries INTEGER NOT NULL DEFAULT 0,
    fence INTEGER NOT NULL DEFAULT 0,
    beat INTEGER NOT NULL DEFAULT 0,
    worker TEXT,
    progress TEXT CHECK (progress IS NULL OR json_valid(progress)),
    reason TEXT,
    layer_id TEXT,
    created TEXT NOT NULL,
    started TEXT,
    finished TEXT,
    CHECK ((state = 'running') = (worker IS NOT NULL)),
    CHECK ((state IN ('queued', 'running')) = (finished IS NULL)),
    CHECK ((state = 'done') = (layer_id IS NOT NULL)),
    CHECK (state <> 'failed' OR reason IS NOT NULL)
) STRICT;

-- The same work is waiting or under way once at most; a job that is being cancelled may be ordered anew.
CREATE UNIQUE INDEX open_jobs ON jobs (key) WHERE state IN ('queued', 'running') AND cancelling = 0;
CREATE INDEX next_jobs ON jobs (lane, priority DESC, number) WHERE state = 'queued';
CREATE INDEX jobs_by_state ON jobs (state, number);
CREATE INDEX jobs_by_key ON jobs (key, number);
