-- Layers of features on slide versions. Coordinates are base-plane pixels, doubles, exact.
CREATE TABLE layers (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    slide_id TEXT NOT NULL,
    version TEXT NOT NULL,
    name TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('truth', 'annotation', 'prediction')),
    provenance TEXT NOT NULL CHECK (json_valid(provenance)),
    created TEXT NOT NULL
) STRICT;

CREATE INDEX layers_of_slide ON layers (slide_id, number);

CREATE TABLE classes (
    layer_number INTEGER NOT NULL REFERENCES layers (number) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    name TEXT NOT NULL,
    color TEXT NOT NULL CHECK (length(color) = 7 AND color GLOB '#*' AND substr(color, 2) NOT GLOB '*[^0-9a-f]*'),
    count INTEGER NOT NULL,
    base_area REAL NOT NULL,
    PRIMARY KEY (layer_number, number),
    UNIQUE (layer_number, name)
) STRICT, WITHOUT ROWID;

-- `geometry` is WKB; the four bounds are those of the geometry, exact.
CREATE TABLE features (
    id INTEGER PRIMARY KEY,
    layer_number INTEGER NOT NULL REFERENCES layers (number) ON DELETE CASCADE,
    class_number INTEGER NOT NULL,
    uuid TEXT NOT NULL,
    score REAL CHECK (score BETWEEN 0 AND 1),
    base_x0 REAL NOT NULL,
    base_y0 REAL NOT NULL,
    base_x1 REAL NOT NULL,
    base_y1 REAL NOT NULL,
    base_area REAL NOT NULL,
    geometry BLOB NOT NULL,
    properties TEXT NOT NULL,
    FOREIGN KEY (layer_number, class_number) REFERENCES classes (layer_number, number)
) STRICT;

CREATE INDEX features_by_size ON features (layer_number, base_area DESC);
CREATE INDEX features_by_class ON features (layer_number, class_number);

-- The tree holds 32-bit floats rounded outwards: it proposes, the exact columns of `features` decide. Its third axis keeps
-- the layers apart (a power of two times the layer's number is exact in 32 bits, and large beside any slide).
CREATE VIRTUAL TABLE feature_boxes USING rtree (id, x0, x1, y0, y1, layer0, layer1);

CREATE TRIGGER features_inserted AFTER INSERT ON features BEGIN
    INSERT INTO feature_boxes VALUES (
        new.id, new.base_x0, new.base_x1, new.base_y0, new.base_y1,
        new.layer_number * 1048576, new.layer_number * 1048576
    );
END;

CREATE TRIGGER features_deleted AFTER DELETE ON features BEGIN
    DELETE FROM feature_boxes WHERE id = old.id;
END;
