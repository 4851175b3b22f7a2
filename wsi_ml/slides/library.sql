-- Slides and their versions. Files are written first, rows second, and deletions go the other way round.
CREATE TABLE slides (
    id TEXT PRIMARY KEY CHECK (length(id) BETWEEN 8 AND 64),
    name TEXT NOT NULL UNIQUE,
    created TEXT NOT NULL,
    current TEXT NOT NULL
) STRICT;

CREATE TABLE versions (
    version TEXT NOT NULL,
    slide_id TEXT NOT NULL,
    ingest_key TEXT NOT NULL,
    source_sha256 TEXT NOT NULL,
    created TEXT NOT NULL,
    removed TEXT,
    PRIMARY KEY (slide_id, version)
) STRICT;

CREATE INDEX versions_by_key ON versions (ingest_key);
CREATE INDEX versions_by_source ON versions (source_sha256);
