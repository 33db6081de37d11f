/**
 * The functions of version 1 of the tables. They are in the database so that their plans do not hang on statistics: a
 * queue that was empty a minute ago may have a million rows, and the planner, told otherwise, would read them all, or
 * compare each row of a batch with each of a table. Here rows in order come by their index, and rows by name one by one.
 * A plan is kept by the session, which also saves making it for every batch.
 *
 * Released functions are never edited: a change is a migration that adds one with the next number.
 */

/** One plan for the session: it is the same for every batch, and making it takes longer than a small one. */
const planned = 'LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan'
const byIndex = 'SET enable_seqscan = off SET enable_bitmapscan = off'
/** Where a batch is joined with a table: look each row up. */
const oneByOne = `${planned} ${byIndex} SET enable_hashjoin = off SET enable_mergejoin = off`

/** @param s quoted schema */
export function functions1(s: string): string {
  return (
    putMessages(s) +
    takeMessages(s) +
    changeMessages(s) +
    claimOutbox(s) +
    claimInbox(s) +
    changeInbox(s) +
    purgeInbox(s)
  )
}

function putMessages(s: string): string {
  // Sorted: two that send the same copies at once must not wait for each other.
  const insert = `INSERT INTO ${s}.message (queue, due_at, since, copy_id, body)
    SELECT of_queue, at, at, b.copy_id, substring(bodies FROM b.start FOR b.bytes)
    FROM unnest(copies, delays_ms, starts, lengths) WITH ORDINALITY AS b (copy_id, delay_ms, start, bytes, nth),
      LATERAL (SELECT sent_at + b.delay_ms * interval '1 millisecond' + b.nth * interval '1 microsecond' AS at) AS due
    ORDER BY b.copy_id COLLATE "C"`
  return `
-- Stores messages without an ordering key; a copy that is still there stays as it is. Bodies are cut from one value.
-- Those of one batch are a microsecond apart, in their order. Notifies unless "channel" is NULL.
CREATE FUNCTION ${s}.put_1(of_queue int, copies text[], delays_ms float8[], bodies bytea, starts int[], lengths int[],
  channel text, payload text) RETURNS void
${planned} AS $put$
DECLARE
  sent_at timestamptz := clock_timestamp();
BEGIN
  BEGIN
    -- Nearly every copy is new. ON CONFLICT would look for each twice.
    ${insert};
  EXCEPTION WHEN unique_violation THEN
    ${insert}
    ON CONFLICT (copy_id, queue) DO NOTHING;
  END;
  IF channel IS NOT NULL THEN
    PERFORM pg_notify(channel, payload);
  END IF;
END $put$;
`
}

/**
 * The fence of a delivery: 52 random bits. A sequence would give the same ones again if a server crashed before it wrote
 * that down, and nobody waits for that here.
 */
const newToken = '1 + floor(random() * 9007199254740992)::bigint'

/** Bodies of a take that are together no larger come as one value: reading a thousand rows costs a client more. */
const maxPackedBytes = 1024 * 1024

function takeMessages(s: string): string {
  return `
-- Leases up to "most" messages that are due and not leased, first those that have been due for longest, of those due at
-- or after from_us (NULL: all). Times in microseconds since 1970. One row at least: now_us is the time it looked at.
-- Each further column is of one message, or of all: JSON and arrays as text, bodies after each other.
CREATE FUNCTION ${s}.take_1(of_queue int, most int, lease_ms float8, from_us bigint)
RETURNS TABLE (now_us text, last_us text, nth int, copies text, places text, tokens text, deliveries text,
  lengths text, ordered text, bodies bytea)
${oneByOne} SET enable_tidscan = on SET enable_sort = off AS $take$
#variable_conflict use_column
BEGIN
  -- Nobody waits for a lease to reach the disk: after a crash of the server the message is there, as if never received.
  PERFORM set_config('synchronous_commit', 'off', true);
  RETURN QUERY
  WITH picked AS MATERIALIZED (
    SELECT m.ctid AS place FROM ${s}.message AS m
    WHERE m.queue = of_queue AND m.due_at <= now() AND m.lease_until <= now()
      -- Half a second behind the present: what was sent then may be committed only now.
      AND m.due_at >= CASE WHEN from_us IS NULL THEN '-infinity' ELSE least(
        'epoch'::timestamptz + from_us * interval '1 microsecond', now() - interval '500 milliseconds') END
    ORDER BY m.due_at LIMIT most FOR UPDATE SKIP LOCKED),
  taken AS (
    UPDATE ${s}.message AS m
    SET lease_until = now() + lease_ms * interval '1 millisecond', since = now(), deliveries = m.deliveries + 1,
      token = ${newToken}
    FROM picked WHERE m.ctid = picked.place
    RETURNING m.ctid AS place, m.due_at, m.copy_id, m.token, m.deliveries, m.ordering_key, m.turn, m.body),
  numbered AS (SELECT taken.*, row_number() OVER () AS nth FROM taken),
  few AS (SELECT sum(octet_length(taken.body)) <= ${maxPackedBytes} AS bytes FROM taken),
  packed AS (
    SELECT max(due_at) AS last, min(nth) AS nth, json_agg(copy_id)::text AS copies, array_agg(place)::text AS places,
      array_agg(token)::text AS tokens, array_agg(deliveries)::text AS deliveries,
      array_agg(octet_length(body))::text AS lengths,
      (json_object_agg(copy_id, json_build_array(ordering_key, turn))
        FILTER (WHERE ordering_key IS NOT NULL))::text AS ordered,
      string_agg(body, '') AS bodies
    FROM numbered GROUP BY CASE WHEN (SELECT bytes FROM few) THEN 0 ELSE numbered.nth END)
  SELECT ${microseconds('clock.now')}::text, ${microseconds('packed.last')}::text, packed.nth::int, packed.copies,
    packed.places, packed.tokens, packed.deliveries, packed.lengths, packed.ordered, packed.bodies
  FROM (SELECT now() AS now) AS clock LEFT JOIN packed ON true;
END $take$;
`
}

/**
 * A token belongs to one delivery, so it need not be paired with its copy. `IS TRUE` keeps the planner
 * from making a join of it: the tokens are hashed.
 *
 * The place of a row is where a delivery left it. One that is no more there (a release or the end of a lease, but also a
 * table rewritten meanwhile) is looked up by its copy.
 */
function changeMessages(s: string): string {
  const change = (name: string, params: string, change: string, token = 'm.token', places = false): string => `
CREATE FUNCTION ${s}.${name}_1(known_places tid[], known_tokens bigint[]${params})
RETURNS TABLE (tokens text, places text)
${oneByOne} SET enable_tidscan = on AS $change$
BEGIN
  RETURN QUERY
  WITH changed AS (
    ${change}
    WHERE m.ctid = ANY (known_places) AND (m.token IN (SELECT unnest(known_tokens))) IS TRUE
    RETURNING ${token} AS token, m.ctid AS place)
  SELECT array_agg(changed.token)::text, ${places ? 'array_agg(changed.place)::text' : 'NULL'} FROM changed;
END $change$;
CREATE FUNCTION ${s}.${name}_copies_1(of_queue int, copies text[], known_tokens bigint[]${params})
RETURNS TABLE (token bigint, place tid, copy_id text, ordering_key text)
LANGUAGE plpgsql ${byIndex} SET plan_cache_mode = force_custom_plan AS $change$
#variable_conflict use_column
BEGIN
  RETURN QUERY
  ${change}
  -- "queue + 0": else all of a queue that is believed to be empty may be walked rather than each copy looked up.
  WHERE m.copy_id = ANY (copies) AND m.queue + 0 = of_queue AND m.token = ANY (known_tokens)
  RETURNING ${token}, m.ctid, m.copy_id, m.ordering_key;
END $change$;
`
  return `
-- Change deliveries under their tokens, and answer those that hold. Copies sorted: rows are locked in their order.${change(
    'ack',
    '',
    `DELETE FROM ${s}.message AS m`,
  )}${change(
    'extend',
    ', lease_ms float8',
    `UPDATE ${s}.message AS m SET lease_until = clock_timestamp() + lease_ms * interval '1 millisecond'`,
    'm.token',
    true,
  )}
-- Back to whoever comes next; "free" (0 or 1) is taken off the count of deliveries.${change(
    'give_back',
    ', free int',
    `UPDATE ${s}.message AS m SET due_at = clock_timestamp(), lease_until = '-infinity', since = clock_timestamp(),
    token = -m.token, deliveries = m.deliveries - free`,
    '-m.token',
  )}`
}

function claimOutbox(s: string): string {
  return `
-- Leases up to "most" outbox rows with an id above after_id, oldest first.
CREATE FUNCTION ${s}.claim_outbox_1(most int, lease_ms float8, after_id bigint) RETURNS SETOF ${s}.outbox
${oneByOne} SET enable_sort = off AS $claim$
BEGIN
  RETURN QUERY
  WITH picked AS MATERIALIZED (
    SELECT o.id FROM ${s}.outbox AS o WHERE o.id > after_id AND o.lease_until <= now()
    ORDER BY o.id LIMIT most FOR UPDATE SKIP LOCKED)
  UPDATE ${s}.outbox AS o
  SET token = nextval('${s}.token'), lease_until = now() + lease_ms * interval '1 millisecond'
  FROM picked WHERE o.id = picked.id
  RETURNING o.*;
END $claim$;
`
}

/**
 * Race-free at READ COMMITTED: the unique index lets one insert of a key win; DO UPDATE locks the newest committed
 * version of a row and evaluates its WHERE on that, so claims of a key come one after another. The last SELECT reads the
 * snapshot of the statement, which may be old: an unexpired `completed` is final, `stale` was true and its successor
 * durable, and what cannot be told reads as `busy`. A row past its retention is as good as absent: it may not have been
 * purged yet.
 */
function claimInbox(s: string): string {
  const inMs = (ms: string): string => `clock_timestamp() + ${ms} * interval '1 millisecond'`
  return `
-- Claims keys, distinct within a batch: one answer each, in order. Of a token that is 0, and of what is said about a
-- claim beside its attempt, "others" tells more, as JSON by the number of the key.
CREATE FUNCTION ${s}.claim_1(scopes text[], keys text[], fingerprints text[], job_ids text[], replays int[],
  attempts int[], lease_ms float8, retention_ms float8)
RETURNS TABLE (tokens text, starts text, others text)
${planned} ${byIndex} AS $claim$
#variable_conflict use_column
BEGIN
  RETURN QUERY
  WITH asked AS MATERIALIZED (
    SELECT * FROM unnest(scopes, keys, fingerprints, job_ids, replays, attempts)
      WITH ORDINALITY AS a (scope, key, fingerprint, job_id, replay, attempt, nth)),
  won AS (
    INSERT INTO ${s}.inbox AS r
      (scope, key, state, token, lease_until, expires_at, replay, used, floor, job_id, fingerprint)
    SELECT scope, key, 'claimed', nextval('${s}.token'), ${inMs('lease_ms')}, ${inMs('retention_ms')},
      replay, attempt, attempt, job_id, fingerprint
    FROM asked ORDER BY scope COLLATE "C", key COLLATE "C"
    ON CONFLICT (scope, key) DO UPDATE SET
      state = 'claimed', token = excluded.token, lease_until = ${inMs('lease_ms')},
      expires_at = ${inMs('retention_ms')}, replay = excluded.replay, job_id = excluded.job_id,
      fingerprint = excluded.fingerprint, result = NULL,
      crashed = r.expires_at > clock_timestamp() AND r.state = 'claimed',
      used = CASE WHEN r.expires_at <= clock_timestamp() OR r.state = 'failed'
          OR r.job_id = excluded.job_id AND excluded.replay > r.replay
        THEN excluded.used ELSE greatest(excluded.used, r.used + 1) END,
      floor = CASE WHEN r.expires_at > clock_timestamp() AND (r.job_id, r.replay) = (excluded.job_id, excluded.replay)
        THEN greatest(r.floor, excluded.floor) ELSE excluded.floor END,
      steps = CASE WHEN r.expires_at > clock_timestamp() AND r.fingerprint = excluded.fingerprint THEN r.steps END
    WHERE (r.lease_until <= clock_timestamp() OR r.state = 'released' AND r.job_id = excluded.job_id) AND (
      r.expires_at <= clock_timestamp()
      OR r.state IN ('claimed', 'released') AND r.fingerprint = excluded.fingerprint
        AND (r.job_id <> excluded.job_id OR (excluded.replay, excluded.floor) >= (r.replay, r.floor))
      OR r.state = 'failed' AND (r.job_id <> excluded.job_id OR excluded.replay > r.replay))
    RETURNING r.scope, r.key, r.token, r.used, r.crashed, r.steps),
  told AS (SELECT asked.*, won.token, won.used, won.crashed, won.steps FROM asked LEFT JOIN won USING (scope, key)),
  answered AS (
    SELECT told.nth, told.token, told.used, told.crashed, told.steps, CASE
        WHEN told.token IS NOT NULL THEN 'claimed'
        WHEN c.expires_at <= clock_timestamp() THEN 'busy'
        WHEN c.state = 'completed' THEN CASE WHEN c.fingerprint = told.fingerprint THEN 'completed' ELSE 'mismatch' END
        WHEN c.job_id = told.job_id AND ((told.replay, told.attempt) < (c.replay, c.floor)
          OR c.state = 'failed' AND told.replay <= c.replay) THEN 'stale'
        WHEN c.fingerprint <> told.fingerprint AND c.state <> 'failed' THEN 'mismatch'
        ELSE 'busy' END AS status,
      c.result, greatest(50, extract(epoch FROM c.lease_until - clock_timestamp()) * 1000)::float8 AS retry_after_ms
    -- OFFSET 0 keeps the look-up one of each key.
    FROM told LEFT JOIN LATERAL (
      SELECT * FROM ${s}.inbox AS r WHERE told.token IS NULL AND r.scope = told.scope AND r.key = told.key OFFSET 0
    ) AS c ON true
    ORDER BY told.nth)
  SELECT string_agg(coalesce(answered.token, 0)::text, ','), string_agg(coalesce(answered.used, 0)::text, ','),
    (json_object_agg(answered.nth, json_build_object('status', status, 'crashed', crashed, 'steps', steps,
      'result', result, 'retryAfterMs', retry_after_ms)) FILTER (WHERE token IS NULL OR crashed OR steps IS NOT NULL))::text
  FROM answered;
END $claim$;
`
}

/**
 * Renewals, records and ends: token and state are looked at again after any wait for a row. Rows are changed one by one
 * in the order of their keys, so batches cannot deadlock with each other or with claims.
 */
function changeInbox(s: string): string {
  const change = (name: string, params: string, given: string, set: string, also = ''): string => `
CREATE FUNCTION ${s}.${name}(scopes text[], keys text[], tokens bigint[], ${params}) RETURNS text
${oneByOne} AS $change$
DECLARE
  numbers text;
BEGIN
  WITH given AS MATERIALIZED (${given} ORDER BY g.scope COLLATE "C", g.key COLLATE "C"),
  changed AS (
    UPDATE ${s}.inbox AS r SET ${set}
    FROM given
    WHERE r.scope = given.scope AND r.key = given.key AND r.token = given.token AND r.state = 'claimed'
    RETURNING given.nth)
  SELECT string_agg(changed.nth::text, ',') INTO numbers FROM changed;${also}
  RETURN numbers;
END $change$;
`
  const inMs = (ms: string): string => `clock_timestamp() + ${ms} * interval '1 millisecond'`
  return `
-- Change claims under their tokens, and answer the numbers of those that hold: each once, however often it is given.
${change(
  'renew_1',
  'lease_ms float8',
  'SELECT * FROM unnest(scopes, keys, tokens) WITH ORDINALITY AS g (scope, key, token, nth)',
  `lease_until = ${inMs('lease_ms')}`,
)}
-- A key may come several times: its number is then those of all.
${change(
  'record_1',
  'names text[], results text[]',
  `SELECT g.scope, g.key, g.token, jsonb_object_agg(g.name, g.result) AS steps, string_agg(g.nth::text, ',') AS nth
    FROM unnest(scopes, keys, tokens, names, results) WITH ORDINALITY AS g (scope, key, token, name, result, nth)
    GROUP BY g.scope, g.key, g.token`,
  `steps = coalesce(r.steps, '{}') || given.steps`,
)}
-- frees: starts given back, 0 or 1. Nothing asks for the steps of a completed key again. As the last statement of a
-- user's transaction it bounds how long that may stay open: rows must not be held by a connection that died before
-- its COMMIT.
${change(
  'end_1',
  'states text[], floors int[], results text[], frees int[], holds_ms float8[], retention_ms float8',
  `SELECT * FROM unnest(scopes, keys, tokens, states, floors, results, frees, holds_ms) WITH ORDINALITY
    AS g (scope, key, token, state, floor, result, free, hold_ms, nth)`,
  `state = given.state, result = given.result, floor = greatest(r.floor, given.floor), used = r.used - given.free,
    steps = CASE WHEN given.state <> 'completed' THEN r.steps END,
    lease_until = CASE WHEN given.state = 'released' THEN ${inMs('given.hold_ms')} ELSE '-infinity' END,
    expires_at = ${inMs('retention_ms')}`,
  `
  PERFORM set_config('idle_in_transaction_session_timeout', '5000', true);`,
)}`
}

/** Pages looked at in one call at least. */
const purgePages = 2_000
/** Calls in which the whole table is gone round. Core makes one a minute. */
const purgeRounds = 240

/** No index on the expiry: it would cost every job more than this does. */
function purgeInbox(s: string): string {
  return `
-- Deletes up to "most" rows past their retention among the pages from first_page on; next_page is where to go on.
CREATE FUNCTION ${s}.purge_1(first_page bigint, most int) RETURNS TABLE (purged bigint, next_page bigint)
LANGUAGE plpgsql SET enable_seqscan = off AS $purge$
DECLARE
  pages bigint := pg_relation_size('${s}.inbox') / current_setting('block_size')::int;
  first bigint := CASE WHEN first_page < pages THEN first_page ELSE 0 END;
  last bigint := first + greatest(${purgePages}, pages / ${purgeRounds});
BEGIN
  DELETE FROM ${s}.inbox WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM ${s}.inbox
    WHERE ctid >= format('(%s,0)', first)::tid AND ctid < format('(%s,0)', last)::tid
      AND expires_at <= now() AND lease_until <= now()
    LIMIT most FOR UPDATE SKIP LOCKED));
  GET DIAGNOSTICS purged = ROW_COUNT;
  next_page := last;
  RETURN NEXT;
END $purge$;
`
}

/** Since 1970: exact, where a JavaScript date is not. */
function microseconds(time: string): string {
  return `(date_part('epoch', ${time}) * 1000000)::bigint`
}
