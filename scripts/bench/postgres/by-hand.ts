/**
 * The same bodies through a plain table by `pg` alone: leases by SKIP LOCKED, but no copies told apart, retries or
 * handlers. What idemq is compared with.
 */
import pg from 'pg'
import { decode, encodedBodies } from '../harness/bodies.ts'
import type { HandRun, PublishByHand, WaitingRun } from '../harness/broker-bench.ts'
import type { Tasks } from '../harness/fresh-process.ts'
import { alongside, idemqLine, type LineTimes, type OpenLine } from '../harness/lines.ts'
import { type Cost, expectCount, measure } from '../harness/measure.ts'
import { rollCall } from '../harness/roll-call.ts'
import { enqueueBatch } from '../harness/workload.ts'

const table = 'hand'
/** Each with a connection of its own: one claims while what the other claimed is worked. */
const consumers = 2

async function open(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  return client
}

async function create(client: pg.Client, name: string): Promise<void> {
  await client.query(`
    CREATE TABLE ${name} (
      id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
      visible_at timestamptz NOT NULL DEFAULT now(),
      body bytea NOT NULL
    );
    CREATE INDEX ON ${name} (visible_at)`)
}

/** One statement, which also wakes who listens. */
async function insert(client: pg.Client, into: string, bodies: readonly Buffer[]): Promise<void> {
  const text = `WITH put AS (INSERT INTO ${into} (body) SELECT unnest($1::bytea[])) SELECT pg_notify('${into}', '')`
  await client.query({ name: `insert ${into}`, text, values: [bodies] })
}

interface Claimed {
  readonly id: string
  readonly body: Buffer
}

/** Leases up to {@link enqueueBatch} rows for half a minute. By ctid: no plan of it reads more rows than it takes. */
async function claim(client: pg.Client, from: string): Promise<readonly Claimed[]> {
  const text = `UPDATE ${from} SET visible_at = now() + interval '30 seconds'
    WHERE ctid = ANY (ARRAY(
      SELECT ctid FROM ${from} WHERE visible_at <= now() ORDER BY visible_at LIMIT $1 FOR UPDATE SKIP LOCKED))
    RETURNING id, body`
  const { rows } = await client.query<Claimed>({ name: `claim ${from}`, text, values: [enqueueBatch] })
  return rows
}

async function settle(client: pg.Client, from: string, claimed: readonly Claimed[]): Promise<void> {
  const text = `DELETE FROM ${from} WHERE id = ANY ($1::bigint[])`
  const { rowCount } = await client.query({ name: `settle ${from}`, text, values: [claimed.map(({ id }) => id)] })
  expectCount('rows deleted', rowCount ?? 0, claimed.length)
}

async function expectRows(client: pg.Client, what: string, from: string, rows: number): Promise<void> {
  const counted = await client.query<{ rows: string }>(`SELECT count(*) AS rows FROM ${from}`)
  expectCount(what, Number(counted.rows[0]!.rows), rows)
}

const orderOf = ({ body }: Claimed): string => decode(body).payload.orderId

/** Inserts {@link enqueueBatch} rows a statement, one after the other. */
export async function publishByHand({ url, jobs, warmupJobs, encode }: PublishByHand): Promise<Cost> {
  const client = await open(url)
  await create(client, 'warm')
  await create(client, table)
  const bodies = await encodedBodies(jobs)
  const envelopes = encode ? bodies.map(decode) : []
  const publish = async (into: string, many: number): Promise<void> => {
    for (let next = 0; next < many; next += enqueueBatch) {
      const end = Math.min(next + enqueueBatch, many)
      const batch = encode
        ? envelopes.slice(next, end).map((envelope) => Buffer.from(JSON.stringify(envelope)))
        : bodies.slice(next, end)
      await insert(client, into, batch)
    }
  }
  await publish('warm', warmupJobs)
  const cost = await measure(jobs, () => publish(table, jobs))
  await expectRows(client, 'rows', table, jobs)
  await client.end()
  return cost
}

async function workTable(clients: readonly pg.Client[], from: string, jobs: number): Promise<Cost> {
  const roll = rollCall(0, jobs)
  const consume = async (client: pg.Client): Promise<void> => {
    for (;;) {
      const claimed = await claim(client, from)
      if (claimed.length === 0) break
      for (const row of claimed) roll.present(orderOf(row))
      await settle(client, from, claimed)
    }
  }
  const cost = await measure(jobs, async () => {
    await Promise.all([roll.complete, ...clients.map(consume)])
  })
  roll.check()
  await expectRows(clients[0]!, 'rows left', from, 0)
  return cost
}

/** Works what {@link publishByHand} left. */
export async function workByHand({ url, jobs, warmupJobs }: HandRun): Promise<Cost> {
  const clients = await Promise.all(Array.from({ length: consumers }, () => open(url)))
  await workTable(clients, 'warm', warmupJobs)
  const cost = await workTable(clients, table, jobs)
  await Promise.all(clients.map((client) => client.end()))
  return cost
}

/** A producer, and a consumer that claims when it is notified. */
function byHand(url: string): OpenLine {
  return async (started, jobs) => {
    const bodies = await encodedBodies(jobs)
    const [producer, consumer] = [await open(url), await open(url)]
    await create(producer, table)
    let consuming = Promise.resolve()
    let waiting = 0
    const consume = async (): Promise<void> => {
      const claimed = await claim(consumer, table)
      for (const row of claimed) started(orderOf(row))
      if (claimed.length > 0) await settle(consumer, table, claimed)
      waiting--
    }
    consumer.on('notification', () => {
      // What one look finds, the next need not look for: one waits at most.
      if (waiting === 2) return
      waiting++
      consuming = consuming.then(consume)
    })
    await consumer.query(`LISTEN ${table}`)
    return {
      send: (from, many) => insert(producer, table, bodies.slice(from, from + many)),
      async close() {
        await consuming
        await expectRows(producer, 'rows left', table, 0)
        await producer.end()
        await consumer.end()
      },
    }
  }
}

/** By turns: by hand, idemq without an inbox, idemq with one. */
export function waiting({ url, otherUrl, ...sizes }: WaitingRun): Promise<LineTimes[]> {
  return alongside([byHand(url), idemqLine(url, 'no inbox'), idemqLine(otherUrl, 'inbox')], sizes)
}

export const tasks: Tasks = { publishByHand, workByHand, waiting }
