-- Storing. Each statement in these functions sees what was committed before that statement began (they need
-- READ COMMITTED, and connections see to it): what is the head once the lock of the order is held stays the
-- head.

-- The lock of the order: who holds it alone gives out seqs, until its transaction is over.
CREATE FUNCTION @lock(patience text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('lock_timeout', patience, true);
    PERFORM pg_advisory_xact_lock('@log'::regclass::oid::integer, 1);
END $$;

-- Store events after a head. The lock of the order is held.
CREATE FUNCTION @put(
    head bigint, used bigint, new_batch bigint,
    channels text[], datas bytea[], events text[], retries integer[], keys text[], ends boolean[],
    OUT last bigint, OUT seqs bigint[], OUT stored_at double precision
) LANGUAGE plpgsql AS $$
BEGIN
    stored_at := extract(epoch FROM clock_timestamp());
    IF keys IS NULL THEN
        INSERT INTO @record (seq, time, batch, bytes, retry, "end", channel, event, data)
        SELECT head + n, stored_at, new_batch, used + sum(octet_length(data) + 200) OVER (ORDER BY n),
               retry, coalesce("end", false), channel, event, data
        FROM unnest(channels, datas, events, retries, ends)
            WITH ORDINALITY AS given (channel, data, event, retry, "end", n);
        last := head + cardinality(channels);
        RETURN;
    END IF;
    -- Of those whose key is not stored yet, the first of this very batch is.
    WITH given AS (
        SELECT *, row_number() OVER (PARTITION BY channel, key ORDER BY n) AS nth,
               (SELECT r.seq FROM @record r WHERE r.channel = g.channel AND r.key = g.key) AS known
        FROM unnest(channels, datas, events, retries, keys, ends)
            WITH ORDINALITY AS g (channel, data, event, retry, key, "end", n)
    ), fresh AS (
        SELECT *, head + row_number() OVER (ORDER BY n) AS seq
        FROM given WHERE known IS NULL AND (key IS NULL OR nth = 1)
    ), stored AS (
        INSERT INTO @record (seq, time, batch, bytes, retry, "end", channel, event, key, data)
        SELECT seq, stored_at, new_batch, used + sum(octet_length(data) + 200) OVER (ORDER BY n),
               retry, coalesce("end", false), channel, event, key, data
        FROM fresh
    )
    SELECT head + (SELECT count(*) FROM fresh),
           array_agg(coalesce(
               g.known, f.seq, (SELECT o.seq FROM fresh o WHERE o.channel = g.channel AND o.key = g.key)
           ) ORDER BY g.n)
    INTO last, seqs
    FROM given g LEFT JOIN fresh f USING (n);
END $$;

-- Whether this is a log that has lost what it had: it is of the same epoch, and in the place of the newest record
-- that the caller knows there is another, or none.
CREATE FUNCTION @has_lost(epoch text, trimmed bigint, mark_epoch text, mark_seq bigint, mark_batch bigint)
RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF epoch IS DISTINCT FROM mark_epoch OR mark_seq <= trimmed THEN
        RETURN false;
    END IF;
    RETURN mark_batch IS DISTINCT FROM (SELECT r.batch FROM @record r WHERE r.seq = mark_seq);
END $$;

-- Append events, and before them what waits in the outbox. In a log that has lost what it had a new epoch begins
-- first: no position may ever mean two events.
-- seqs: only if there are keys; else they rise from first to last.
CREATE FUNCTION @append(
    new_batch bigint, new_epoch text, mark_epoch text, mark_seq bigint, mark_batch bigint,
    sync text, patience text,
    channels text[], datas bytea[], events text[], retries integer[], keys text[], ends boolean[],
    OUT epoch text, OUT first bigint, OUT last bigint, OUT seqs bigint[], OUT stored_at double precision
) LANGUAGE plpgsql @planned AS $$
DECLARE
    trimmed bigint;
    head bigint;
    head_batch bigint;
    used bigint;
    refuses boolean;
    waits boolean;
    lost boolean := false;
BEGIN
    PERFORM set_config('lock_timeout', patience, true), pg_advisory_xact_lock('@log'::regclass::oid::integer, 1);
    IF sync IS NOT NULL THEN
        PERFORM set_config('synchronous_commit', sync, true);
    END IF;
    SELECT s.epoch, s.trimmed, s.head, s.batch, s.bytes, s.refuses, EXISTS (SELECT FROM @outbox)
    INTO epoch, trimmed, head, head_batch, used, refuses, waits
    FROM @state s;
    IF epoch IS NULL THEN
        RAISE 'the log has no row' USING ERRCODE = 'PS003';
    END IF;
    IF refuses AND EXISTS (SELECT FROM @refused r WHERE r.batch = new_batch) THEN
        RAISE 'its publisher has given it up' USING ERRCODE = 'PS001';
    END IF;
    IF head <> mark_seq OR head_batch <> mark_batch THEN  -- it need not be asked if that is what the caller knows
        lost := @has_lost(epoch, trimmed, mark_epoch, mark_seq, mark_batch);
    END IF;
    IF lost THEN
        UPDATE @log l SET epoch = new_epoch WHERE l.one;
        epoch := new_epoch;
    END IF;
    IF waits THEN
        PERFORM @move();
        SELECT s.head, s.bytes INTO head, used FROM @state s;
    END IF;
    first := head + 1;
    IF cardinality(channels) = 1 AND keys IS NULL THEN  -- as @put does, but in less time
        stored_at := extract(epoch FROM clock_timestamp());
        last := first;
        INSERT INTO @record (seq, time, batch, bytes, retry, "end", channel, event, data)
        VALUES (first, stored_at, new_batch, used + octet_length(datas[1]) + 200,
                retries[1], coalesce(ends[1], false), channels[1], events[1], datas[1]);
    ELSE
        SELECT p.last, p.seqs, p.stored_at INTO last, seqs, stored_at
        FROM @put(head, used, new_batch, channels, datas, events, retries, keys, ends) p;
    END IF;
    IF lost THEN
        PERFORM pg_notify(@bell, 'epoch');
    ELSIF waits OR last >= first THEN
        PERFORM pg_notify(@bell, last::text);
    END IF;
END $$;

-- Find out what became of an append that was not answered: give what it stored; or, if that is nothing, see to it
-- that it stays so, however late it may yet arrive.
CREATE FUNCTION @settle(asked bigint, mark_seq bigint, mark_batch bigint, patience text)
RETURNS TABLE (epoch text, seq bigint, stored_at double precision, keyed boolean)
LANGUAGE plpgsql @planned AS $$
BEGIN
    PERFORM @lock(patience);
    IF NOT EXISTS (SELECT FROM @record r WHERE r.seq = mark_seq AND r.batch = mark_batch) THEN
        mark_seq := 0;  -- it was trimmed, or lost: look at all that there is
    END IF;
    RETURN QUERY
        SELECT l.epoch, r.seq, r.time, r.key IS NOT NULL FROM @log l, @record r
        WHERE l.one AND r.seq > coalesce(mark_seq, 0) AND r.batch = asked ORDER BY r.seq;
    IF NOT FOUND THEN
        INSERT INTO @refused (batch) VALUES (asked) ON CONFLICT DO NOTHING;
        UPDATE @log l SET refuses = true WHERE l.one AND NOT l.refuses;
    END IF;
END $$;

-- Begin a new epoch, if the present one is still the one that is meant.
CREATE FUNCTION @renew(old_epoch text, new_epoch text, patience text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM @lock(patience);
    UPDATE @log l SET epoch = new_epoch WHERE l.epoch = old_epoch;
    IF FOUND THEN
        PERFORM pg_notify(@bell, 'epoch');
    END IF;
    RETURN FOUND;
END $$;
