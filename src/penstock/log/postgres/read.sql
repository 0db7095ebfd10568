-- Reading. mark_*: epoch, seq and batch of the newest record that the caller knows.

-- What the log holds now, whether it has lost something, and whether something waits in the outbox.
CREATE FUNCTION @look(mark_epoch text, mark_seq bigint, mark_batch bigint)
RETURNS TABLE (epoch text, trimmed bigint, head bigint, batch bigint, lost boolean, waits boolean)
LANGUAGE plpgsql STABLE @planned AS $$
BEGIN
    RETURN QUERY
        SELECT s.epoch, s.trimmed, s.head, s.batch,
               @has_lost(s.epoch, s.trimmed, mark_epoch, mark_seq, mark_batch), EXISTS (SELECT FROM @outbox)
        FROM @state s;
END $$;

-- What follows a seq, up to so many records and bytes of data, but always one record. Where there is none, a row
-- without a record tells the rest.
CREATE FUNCTION @read(
    after bigint, most_records bigint, most_bytes bigint, mark_epoch text, mark_seq bigint, mark_batch bigint
) RETURNS TABLE (
    epoch text, lost boolean, seq bigint, batch bigint, "time" double precision, channel text, data bytea,
    event text, retry integer, key text, "end" boolean
) LANGUAGE plpgsql STABLE @planned AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
        SELECT l.epoch, l.lost, r.seq, r.batch, r.time, r.channel, r.data, r.event, r.retry, r.key, r."end"
        FROM (
            SELECT o.epoch, o.trimmed,
                   @has_lost(o.epoch, o.trimmed, mark_epoch, mark_seq, mark_batch) AS lost
            FROM @log o WHERE o.one LIMIT 1
        ) l LEFT JOIN LATERAL (
            SELECT *
            FROM (
                SELECT *, sum(octet_length(n.data)) OVER (ORDER BY n.seq) AS total,
                       row_number() OVER (ORDER BY n.seq) AS nth
                FROM (
                    SELECT * FROM @record e
                    WHERE e.seq > greatest(after, l.trimmed) ORDER BY e.seq LIMIT most_records
                ) n
            ) counted
            WHERE counted.total <= most_bytes OR counted.nth = 1
        ) r ON true
        ORDER BY r.seq;
END $$;

-- The newest records of some channels, and of those that one of the regular expressions covers, which lie from low
-- to high in the order of names. These are found by going from one name to the next in the index, not by walking
-- all of it.
CREATE FUNCTION @latest(
    channels text[], lows text[], highs text[], expressions text[], most_records bigint, ends boolean
) RETURNS TABLE (
    epoch text, lost boolean, seq bigint, batch bigint, "time" double precision, channel text, data bytea,
    event text, retry integer, key text, "end" boolean
) LANGUAGE plpgsql STABLE @planned AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
        SELECT l.epoch, false, r.seq, r.batch, r.time, r.channel, r.data, r.event, r.retry, r.key, r."end"
        FROM (SELECT o.epoch FROM @log o WHERE o.one LIMIT 1) l, LATERAL (
            SELECT n.*
            FROM (
                SELECT * FROM unnest(channels)
                UNION
                SELECT found.name
                FROM unnest(lows, highs, expressions) AS wanted (low, high, expression), LATERAL (
                    WITH RECURSIVE next (name) AS (
                        SELECT min(o.channel) FROM @record o WHERE o.channel >= wanted.low
                        UNION ALL
                        SELECT (SELECT min(o.channel) FROM @record o WHERE o.channel > next.name)
                        FROM next WHERE next.name < wanted.high
                    )
                    SELECT next.name FROM next
                    WHERE next.name < wanted.high AND '/' || next.name ~ wanted.expression
                ) found
            ) c (name), LATERAL (
                SELECT o.* FROM @record o
                WHERE o.channel = c.name AND (NOT o."end" OR ends) ORDER BY o.seq DESC LIMIT most_records
            ) n
            ORDER BY n.seq DESC LIMIT most_records
        ) r
        ORDER BY r.seq;
END $$;
