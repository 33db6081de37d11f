/**
 * How long a batch takes with many messages waiting while somebody's transaction stays open, so that nothing dead can be
 * vacuumed: node --conditions=idemq-source packages/postgres/test/backlog.ts [--rows 1000000] [--minutes 3]
 * Prints what it measured, and exits with 1 if the last minute is slower than twice the first.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { bed } from '@idemq/conformance/bed'
import type { Receiver } from '@idemq/core'
import pg from 'pg'
import { postgres } from '../src/index.ts'

const { values } = parseArgs({
  options: { rows: { type: 'string', default: '1000000' }, minutes: { type: 'string', default: '3' } },
})
const rows = Number(values.rows)
const minutes = Number(values.minutes)
const batch = 100
/** Batches a second: what is done leaves dead rows behind, half a million in some minutes. */
const batchesPerSecond = 25

const { signal } = new AbortController()
const queue = { name: 'orders', group: 'default' }
const server = await bed('postgres')
const { driver, inbox } = postgres(server.url)
await driver.declare(queue, 'create', signal)
const admin = new pg.Client(server.url)
await admin.connect()
await admin.query(
  `INSERT INTO idemq.message (queue, due_at, since, copy_id, body)
   SELECT 1, at, at, 'waiting ' || n, convert_to(repeat('x', 300), 'UTF8')
   FROM generate_series(1, $1::int) AS n, LATERAL (SELECT now() - interval '1 hour' + n * interval '1 microsecond' AS at) AS t`,
  [rows],
)
await admin.query('VACUUM ANALYZE idemq.message')
const old = new pg.Client(server.url)
await old.connect()
await old.query('BEGIN ISOLATION LEVEL REPEATABLE READ')
await old.query('SELECT count(*) FROM pg_class')

type Times = Record<'receive' | 'claim' | 'end' | 'settle' | 'all', number[]>

const minute = (): Times => ({ receive: [], claim: [], end: [], settle: [], all: [] })
const measured = Array.from({ length: minutes }, minute)
let sent = 0
let worked = 0

async function timed<T>(into: number[], work: () => Promise<T>): Promise<T> {
  const startedMs = performance.now()
  const value = await work()
  into.push(performance.now() - startedMs)
  return value
}

const open = (): Promise<Receiver> =>
  driver.open(queue, { maxUnsettled: 1_000, leaseMs: 30_000, onLost: () => {} }, signal)

async function oneBatch(times: Times, receiver: Receiver): Promise<void> {
  const deliveries = await timed(times.receive, () => receiver.receive(batch, 1_000, signal))
  if (deliveries.length !== batch) throw new Error(`received ${deliveries.length} of ${batch}`)
  const requests = deliveries.map(() => {
    const key = `job ${worked++}`
    return { scope: 's', key, fingerprint: 'f', jobId: key, replay: 0, attempt: 1 }
  })
  const lasting = { leaseMs: 15_000, retentionMs: 86_400_000 }
  const answers = await timed(times.claim, () => inbox.claim(requests, lasting, signal))
  const ends = answers.map((answer, i) => {
    if (answer.status !== 'claimed') throw new Error(`not claimed but ${answer.status}`)
    const { scope, key } = requests[i]!
    return { scope, key, token: answer.token, state: 'completed', floor: 1, free: false, holdMs: 0 } as const
  })
  await timed(times.end, () => inbox.end(ends, lasting.retentionMs, signal))
  const done = deliveries.map((delivery) => ({ delivery, outcome: 'ack' }) as const)
  await timed(times.settle, () => receiver.settle(done, signal))
}

const receiver = await open()
const startMs = performance.now()
for (;;) {
  const startedMs = performance.now()
  const times = measured[Math.floor((startedMs - startMs) / 60_000)]
  if (!times) break
  await oneBatch(times, receiver)
  times.all.push(performance.now() - startedMs)
  const more = Array.from({ length: batch }, () => {
    const copyId = `sent ${sent++}`
    return { copyId, jobId: copyId, body: Buffer.alloc(300, 'x'), partitionKey: copyId, ordered: false, delayMs: 0 }
  })
  await driver.send(queue, more, signal)
  await delay(Math.max(0, 1_000 / batchesPerSecond - (performance.now() - startedMs)))
}
const { rows: dead } = await admin.query(
  `SELECT relname AS table, pg_size_pretty(pg_total_relation_size(relid)) AS size, n_dead_tup AS dead
   FROM pg_stat_user_tables WHERE relname IN ('message', 'inbox') ORDER BY 1`,
)
const newcomer = minute()
await oneBatch(newcomer, await open())
await oneBatch(newcomer, receiver)

const quantile = (times: readonly number[], q: number): string =>
  times.toSorted((a, b) => a - b)[Math.min(times.length - 1, Math.floor(times.length * q))]!.toFixed(1)
console.log(
  `${rows} messages waiting, a transaction open all the time, ${batch} messages a batch; ms: p50, p99, longest`,
)
for (const [i, times] of measured.entries()) {
  const cells = Object.entries(times).map(
    ([name, of]) => `${name} ${[0.5, 0.99, 1].map((q) => quantile(of, q)).join(' ')}`,
  )
  console.log(`minute ${i + 1}, ${times.all.length} batches: ${cells.join(' | ')}`)
}
console.log(`a receiver that begins after that: first batch received in ${newcomer.receive[0]!.toFixed(1)} ms`)
for (const { table, size, dead: rowsDead } of dead) console.log(`${table}: ${size}, ${rowsDead} rows dead`)

await old.end()
await admin.end()
await driver.close()
await inbox.close()
await server.stop()
const [first, last] = [measured[0]!, measured.at(-1)!].map(({ all }) => Number(quantile(all, 0.5)))
process.exit(last! <= 2 * first! ? 0 : 1)
