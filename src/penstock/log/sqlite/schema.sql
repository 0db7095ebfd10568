-- The log in SQLite, schema version 1.
-- seq is the rowid: dense, because only an append under the write lock gives it out.
CREATE TABLE record (
    seq     INTEGER PRIMARY KEY,
    time    REAL    NOT NULL,               -- seconds since 1970-01-01 UTC
    channel TEXT    NOT NULL,
    event   TEXT,
    data    TEXT    NOT NULL,
    retry   INTEGER,                        -- milliseconds
    key     TEXT,
    "end"   INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX record_channel ON record (channel);  -- holds the rowid too: (channel, seq)
CREATE UNIQUE INDEX record_key ON record (channel, key) WHERE key IS NOT NULL;

-- One row. trimmed is the highest seq that was removed, so that seq goes on when nothing is left.
CREATE TABLE log (
    one     INTEGER PRIMARY KEY CHECK (one = 1),
    epoch   TEXT    NOT NULL,
    trimmed INTEGER NOT NULL
);
