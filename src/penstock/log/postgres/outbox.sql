-- Publishing in a transaction of the application's own.

-- Lay events into the outbox, where they share the fate of the caller's transaction. No lock is held meanwhile;
-- who follows is told at its commit. log_id: of the log that is meant; the connection may lead to another.
-- given: a JSON array of objects; data is in base64, since JSON in PostgreSQL cannot hold NUL.
CREATE FUNCTION @offer(log_id text, given text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM @log l WHERE l.id = log_id) THEN
        RAISE 'this is another log' USING ERRCODE = 'PS002';
    END IF;
    INSERT INTO @outbox (retry, "end", channel, event, key, data)
    SELECT retry, coalesce("end", false), channel, event, key, decode(data, 'base64')
    FROM ROWS FROM (json_to_recordset(given::json) AS (
        channel text, data text, event text, retry integer, key text, "end" boolean
    )) WITH ORDINALITY AS e (channel, data, event, retry, key, "end", n)
    ORDER BY n;
    PERFORM pg_notify(@bell, 'outbox');
END $$;

-- Move what waits in the outbox into the log, in the order in which it was laid there. The lock of the order is
-- held; so nobody else moves, and a row that is locked all the same is left for later.
-- In one transaction at most some thousands of events, and megabytes: publishers wait for it.
CREATE FUNCTION @move() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    channels text[];
    datas bytea[];
    events text[];
    retries integer[];
    keys text[];
    ends boolean[];
    several bigint;
    moved bigint := 0;
BEGIN
    FOR turn IN 1..10 LOOP
        WITH waiting AS (
            SELECT o.id, octet_length(o.data) AS size
            FROM @outbox o ORDER BY o.id LIMIT 500 FOR UPDATE SKIP LOCKED
        ), due AS (
            SELECT w.id, w.size, sum(w.size) OVER (ORDER BY w.id) AS total FROM waiting w
        ), gone AS (
            DELETE FROM @outbox o
            WHERE o.id IN (SELECT d.id FROM due d WHERE d.total - d.size < 8 * 1024 * 1024)
            RETURNING *
        )
        SELECT count(*), array_agg(channel ORDER BY id), array_agg(data ORDER BY id),
               array_agg(event ORDER BY id), array_agg(retry ORDER BY id),
               CASE WHEN count(key) > 0 THEN array_agg(key ORDER BY id) END, array_agg("end" ORDER BY id)
        INTO several, channels, datas, events, retries, keys, ends
        FROM gone;
        EXIT WHEN several = 0;
        PERFORM @put(
            s.head, s.bytes, ('x' || left(md5(gen_random_uuid()::text), 16))::bit(64)::bigint,
            channels, datas, events, retries, keys, ends
        ) FROM @state s;
        moved := moved + several;
    END LOOP;
    RETURN moved;
END $$;
