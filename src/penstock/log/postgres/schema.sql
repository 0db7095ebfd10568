-- The log in PostgreSQL, schema version 1. Each @name is that name with the schema and the prefix of the URL.

-- One row, which only trimming and a new epoch change. An append leaves no dead row behind, so that none gets
-- slower while a backup, or a transaction that somebody forgot, keeps vacuum from its work.
CREATE TABLE @log (
    one           boolean PRIMARY KEY DEFAULT true CHECK (one),
    version       integer NOT NULL,            -- of the schema
    id            text    NOT NULL,            -- tells this log from every other
    epoch         text    NOT NULL,
    trimmed       bigint  NOT NULL DEFAULT 0,  -- the highest seq that was removed
    trimmed_bytes bigint  NOT NULL DEFAULT 0,  -- its record.bytes
    refuses       boolean NOT NULL DEFAULT false  -- whether there are any that are refused
);

-- seq is dense: only an append that holds the lock of the order gives it out, as the head plus one.
CREATE TABLE @record (
    seq     bigint           PRIMARY KEY,
    time    double precision NOT NULL,      -- seconds since 1970-01-01 UTC, by the server's clock
    batch   bigint           NOT NULL,      -- random, one for each append: what is at a seq is known by it
    bytes   bigint           NOT NULL,      -- what all records took, since ever, this one included
    retry   integer,                        -- milliseconds
    "end"   boolean          NOT NULL,
    channel text COLLATE "C" NOT NULL,
    event   text COLLATE "C",
    key     text COLLATE "C",
    data    bytea            NOT NULL       -- UTF-8; text could not hold NUL
) WITH (  -- rows come at one end and go at the other: vacuum gives their room back
    autovacuum_vacuum_scale_factor = 0.05,
    toast.autovacuum_vacuum_scale_factor = 0.05
);
CREATE INDEX ON @record (channel, seq);
CREATE UNIQUE INDEX ON @record (channel, key) WHERE key IS NOT NULL;

-- Events that were published in a transaction of the application's own, until they are moved into the log.
CREATE TABLE @outbox (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    retry   integer,
    "end"   boolean          NOT NULL,
    channel text COLLATE "C" NOT NULL,
    event   text COLLATE "C",
    key     text COLLATE "C",
    data    bytea            NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- Appends whose publishers were told that nothing was stored: should one arrive yet, it stores nothing.
CREATE TABLE @refused (
    batch bigint      PRIMARY KEY,
    at    timestamptz NOT NULL DEFAULT now()
);

-- What the log holds. That the newest is looked for above what was trimmed spares a walk over dead rows.
CREATE VIEW @state AS
SELECT l.epoch, l.trimmed, l.trimmed_bytes, l.refuses,
       coalesce(r.seq, l.trimmed) AS head, r.batch, coalesce(r.bytes, l.trimmed_bytes) AS bytes
FROM (SELECT * FROM @log WHERE one LIMIT 1) l LEFT JOIN LATERAL (
    SELECT n.seq, n.batch, n.bytes FROM @record n WHERE n.seq > l.trimmed ORDER BY n.seq DESC LIMIT 1
) r ON true;
