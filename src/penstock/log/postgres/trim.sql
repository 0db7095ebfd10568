-- Remove the oldest records that are not to be kept, at most so many in this transaction. Appends wait for nothing
-- here; of those who trim one does it at a time.
-- A record counts as its data and 200 bytes, about what its row and its entries in the indexes take.
CREATE FUNCTION @trim(most_age double precision, most_records bigint, most_bytes bigint, step integer)
RETURNS bigint LANGUAGE plpgsql @planned AS $$
DECLARE
    at @state%ROWTYPE;
    farthest bigint;
    upto bigint;
    expired bigint;
BEGIN
    PERFORM pg_advisory_xact_lock('@log'::regclass::oid::integer, 2);
    SELECT * INTO at FROM @state;
    farthest := least(at.head, at.trimmed + step);
    upto := at.trimmed;
    IF at.head - upto > most_records THEN
        upto := least(at.head - most_records, farthest);
    END IF;
    IF at.bytes - at.trimmed_bytes > most_bytes THEN
        SELECT min(r.seq) INTO expired FROM @record r
        WHERE r.seq > at.trimmed AND r.seq <= farthest AND r.bytes >= at.bytes - most_bytes;
        upto := greatest(upto, coalesce(expired, farthest));
    END IF;
    IF most_age IS NOT NULL THEN
        SELECT min(r.seq) INTO expired FROM @record r
        WHERE r.seq > at.trimmed AND r.seq <= farthest
          AND r.time >= extract(epoch FROM clock_timestamp()) - most_age;
        upto := greatest(upto, coalesce(expired - 1, farthest));
    END IF;
    IF upto > at.trimmed THEN
        UPDATE @log l SET trimmed = upto, trimmed_bytes = r.bytes FROM @record r WHERE l.one AND r.seq = upto;
        DELETE FROM @record r WHERE r.seq > at.trimmed AND r.seq <= upto;
    END IF;
    RETURN upto - at.trimmed;
END $$;

-- Forget who was refused a day ago: so late none of them comes any more.
CREATE FUNCTION @forget() RETURNS void LANGUAGE plpgsql @planned AS $$
BEGIN
    IF EXISTS (SELECT FROM @log l WHERE l.one AND l.refuses) THEN
        PERFORM @lock('1s');
        DELETE FROM @refused WHERE at < now() - interval '1 day';
        UPDATE @log l SET refuses = false WHERE l.one AND NOT EXISTS (SELECT FROM @refused);
    END IF;
END $$;
