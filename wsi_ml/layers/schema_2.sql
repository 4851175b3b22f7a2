-- From format 1 to 2: layers whose features lie in a file, and keys that make publishing twice impossible.
ALTER TABLE layers ADD COLUMN stored_in TEXT NOT NULL DEFAULT 'database' CHECK (stored_in IN ('database', 'file'));
ALTER TABLE layers ADD COLUMN scored INTEGER NOT NULL DEFAULT 0 CHECK (scored IN (0, 1));
ALTER TABLE layers ADD COLUMN file_check TEXT CHECK ((file_check IS NULL) = (stored_in = 'database'));
ALTER TABLE layers ADD COLUMN key TEXT;

CREATE UNIQUE INDEX layers_by_key ON layers (key) WHERE key IS NOT NULL;

UPDATE layers SET scored = EXISTS (
    SELECT 1 FROM features WHERE layer_number = layers.number AND score IS NOT NULL
);
