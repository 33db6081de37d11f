/** What sends, leases, settles and extends messages, a batch in one call. */
import { byIndex, oneByOne, planned } from './plans.ts'

export function messageFunctions(s: string): string {
  return putMessages(s) + takeMessages(s) + changeMessages(s)
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

/** Since 1970: exact, where a JavaScript date is not. */
function microseconds(time: string): string {
  return `(date_part('epoch', ${time}) * 1000000)::bigint`
}
