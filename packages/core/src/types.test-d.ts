/**
 * What the compiler must accept and refuse: payload types flow from `defineJob` to `enqueue` and to the handler.
 * Nothing here runs; `tsc -p packages/core` is the test.
 */
import { z } from 'zod'
import {
  byJobId,
  type Capabilities,
  circuitBreaker,
  connect,
  type DeadLetter,
  defineJob,
  type Enqueued,
  type EnqueueResult,
  type EventMap,
  type IdemqError,
  type InboxStore,
  type Job,
  type JobContext,
  type Mq,
  noInbox,
  type OutboxStore,
  type SqlTransaction,
  type Worker,
} from './index.ts'

type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false
/** Fails to compile unless the type given is `true`. */
function expectType<_Is extends true>(): void {}

declare const mq: Mq
declare const postgres: InboxStore<SqlTransaction>
declare const outboxStore: OutboxStore<SqlTransaction>
declare const tx: SqlTransaction

const charge = defineJob('charge-order', {
  queue: 'payments',
  payload: z.object({ orderId: z.string(), amountCents: z.number(), at: z.coerce.date() }),
  idempotencyKey: (payload) => {
    expectType<Equal<typeof payload, { orderId: string; amountCents: number; at: Date }>>()
    return `charge:${payload.orderId}`
  },
  fingerprint: (payload) => {
    expectType<Equal<typeof payload, { orderId: string; amountCents: number; at: unknown }>>()
    return payload.amountCents
  },
  classify: (error) => (error instanceof RangeError ? 'permanent' : undefined),
})
type ChargeIn = { orderId: string; amountCents: number; at: unknown }
type ChargeOut = { orderId: string; amountCents: number; at: Date }
expectType<Equal<typeof charge, Job<ChargeIn, ChargeOut>>>()

const plain = defineJob('plain', { queue: 'q', payload: z.string(), idempotencyKey: byJobId })

// defineJob refuses what is missing or wrong.
// @ts-expect-error a job has a business key, or says byJobId
defineJob('no-key', { queue: 'q', payload: z.string() })
// @ts-expect-error a job has a queue
defineJob('no-queue', { payload: z.string(), idempotencyKey: byJobId })
// @ts-expect-error a job has a schema
defineJob('no-schema', { queue: 'q', idempotencyKey: byJobId })
// @ts-expect-error the key is text
defineJob('key', { queue: 'q', payload: z.object({ n: z.number() }), idempotencyKey: ({ n }) => n })
// @ts-expect-error the key is made of the payload's own fields
defineJob('field', { queue: 'q', payload: z.object({ n: z.number() }), idempotencyKey: ({ m }) => `${m}` })
// @ts-expect-error no such option
defineJob('option', { queue: 'q', payload: z.string(), idempotencyKey: byJobId, attempts: 3 })
// @ts-expect-error a failure is permanent or transient
defineJob('class', { queue: 'q', payload: z.string(), idempotencyKey: byJobId, classify: () => 'fatal' })
// @ts-expect-error a circuit is an object that jobs share, not its options
defineJob('circuit', { queue: 'q', payload: z.string(), idempotencyKey: byJobId, circuit: { name: 'c' } })
defineJob('shared', {
  queue: 'q',
  payload: z.string(),
  idempotencyKey: byJobId,
  circuit: circuitBreaker({ name: 'c' }),
})

// enqueue takes the input of the schema.
expectType<Equal<ReturnType<typeof mq.enqueue<ChargeIn, ChargeOut>>, Promise<Enqueued>>>()
void mq.enqueue(charge, { orderId: 'o', amountCents: 1, at: '2026-01-01' })
void mq.enqueue(charge, { orderId: 'o', amountCents: 1, at: '2026-01-01' }, { delayMs: 5, orderingKey: 'k' })
// @ts-expect-error amountCents is a number
void mq.enqueue(charge, { orderId: 'o', amountCents: '1', at: 1 })
// @ts-expect-error orderId is missing
void mq.enqueue(charge, { amountCents: 1, at: 1 })
// @ts-expect-error no such field
void mq.enqueue(charge, { orderId: 'o', amountCents: 1, at: 1, cents: 1 })
// @ts-expect-error a string, not an object
void mq.enqueue(plain, { text: 'x' })
// @ts-expect-error no such option: delays have units in their names
void mq.enqueue(plain, 'x', { delay: 5 })
// @ts-expect-error headers are text
void mq.enqueue(plain, 'x', { headers: { n: 1 } })
// @ts-expect-error a job definition, not its name
void mq.enqueue('plain', 'x')

expectType<Equal<Awaited<ReturnType<typeof mq.enqueueMany<string, string>>>, EnqueueResult[]>>()
void mq.enqueueMany(plain, ['a', 'b'], (payload, index) => {
  expectType<Equal<typeof payload, string>>()
  expectType<Equal<typeof index, number>>()
  return { orderingKey: payload }
})
// @ts-expect-error one of the payloads is none
void mq.enqueueMany(plain, ['a', 1])
declare const result: EnqueueResult
if (result.status === 'stored') expectType<Equal<typeof result.jobId, string>>()
else expectType<Equal<typeof result.error, IdemqError>>()
// @ts-expect-error a failed one has no id
void (result.status === 'failed' && result.jobId)

// A handler gets the output of the schema.
const worker = mq.worker()
expectType<Equal<typeof worker, Worker<unknown>>>()
worker
  .handle(charge, (payload, job) => {
    expectType<Equal<typeof payload, ChargeOut>>()
    expectType<Equal<typeof job, JobContext>>()
    expectType<Equal<typeof job.signal, AbortSignal>>()
    // @ts-expect-error what a handler is told is not for it to change
    job.attempt = 2
  })
  .handle(plain, async (payload, job) => {
    const step = await job.step('charge', ({ idempotencyKey, signal }) => {
      expectType<Equal<typeof idempotencyKey, string>>()
      expectType<Equal<typeof signal, AbortSignal>>()
      return { receipt: payload }
    })
    expectType<Equal<typeof step, { receipt: string }>>()
    return step
  })
// @ts-expect-error the payload of charge is no string
worker.handle(charge, (payload: string) => payload)
// @ts-expect-error a handler is a function
worker.handle(charge)
// @ts-expect-error no such option
mq.worker({ inbox: noInbox(), maxConcurrency: 5 })

// A transaction is of the inbox's kind.
const sql = mq.worker({ inbox: postgres })
expectType<Equal<typeof sql, Worker<SqlTransaction>>>()
sql.handleInTransaction(charge, async (payload, _job, transaction) => {
  expectType<Equal<typeof payload, ChargeOut>>()
  expectType<Equal<typeof transaction, SqlTransaction>>()
  await transaction.query('UPDATE stock SET n = n - 1 WHERE id = $1', [payload.orderId])
  await mq.outbox(outboxStore).enqueue(transaction, plain, 'reserved')
})
interface MongoSession {
  readonly mongo: true
}
// @ts-expect-error this inbox has SQL transactions
sql.handleInTransaction(charge, (_payload, _job, session: MongoSession) => session.mongo)
worker.handleInTransaction(charge, (_payload, _job, transaction) => {
  // @ts-expect-error without an inbox that says so, nothing is known of its transactions
  return transaction.query('SELECT 1')
})

// So is the outbox's.
const outbox = mq.outbox(outboxStore)
void outbox.enqueue(tx, charge, { orderId: 'o', amountCents: 1, at: 0 })
// @ts-expect-error not a transaction of this outbox
void outbox.enqueue({ mongo: true }, charge, { orderId: 'o', amountCents: 1, at: 0 })
// @ts-expect-error amountCents is missing
void outbox.enqueue(tx, charge, { orderId: 'o', at: 0 })

// Events and dead letters are typed.
mq.on('retry_scheduled', (event) => {
  expectType<Equal<typeof event.type, 'retry_scheduled'>>()
  expectType<Equal<typeof event.delayMs, number>>()
})
mq.on('*', (event) => {
  expectType<Equal<typeof event.type, keyof EventMap>>()
  if (event.type === 'failed') expectType<Equal<typeof event.error, Error>>()
  // @ts-expect-error only some events have a delay
  void event.delayMs
})
// @ts-expect-error no such event
mq.on('exploded', () => {})
async function letters(): Promise<void> {
  for await (const letter of mq.deadLetters('q').scan({ reason: 'exhausted', where: (l) => l.error !== 'x' })) {
    expectType<Equal<typeof letter, DeadLetter>>()
    // @ts-expect-error raw bytes have no envelope
    void letter.envelope.payload
  }
  // @ts-expect-error no such reason
  mq.deadLetters('q').scan({ reason: 'boredom' })
  // @ts-expect-error a filter is not the options
  await mq.deadLetters('q').replay({ reason: 'exhausted' })
}
void letters

// connect takes what it says, and nothing that may be undefined.
void connect('sqlite:./jobs.db')
void connect(new URL('memory:'))
// @ts-expect-error an unset environment variable is no URL
void connect(process.env.IDEMQ_URL)
// @ts-expect-error declare is create or check
void connect('memory:', { declare: 'drop' })

// A manifest leaves nothing out.
declare const most: Omit<Capabilities, 'groups'>
// @ts-expect-error a driver says whether it has groups
const _capabilities: Capabilities = most
