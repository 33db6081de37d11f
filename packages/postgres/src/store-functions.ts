/** What claims outbox rows, and claims, changes and purges inbox rows, a batch in one call. */
import { byIndex, oneByOne, planned } from './plans.ts'

export function storeFunctions(s: string): string {
  return claimOutbox(s) + claimInbox(s) + changeInbox(s) + purgeInbox(s)
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
