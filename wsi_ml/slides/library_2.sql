-- Format 2: which file of kept ×40 tiles a version leads to, at most one.
CREATE TABLE kept (
    version TEXT PRIMARY KEY,
    key TEXT NOT NULL CHECK (length(key) = 64),
    created TEXT NOT NULL
) STRICT;
