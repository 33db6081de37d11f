/** The job that is measured, and the ways to enqueue and work many of it. */

import { z } from '../../../packages/core/node_modules/zod/index.js'
import { byJobId, defineJob, type Job, type Mq, type WorkerOptions } from '../../../packages/core/src/index.ts'
import { expectCount } from './measure.ts'

export interface Charge {
  readonly orderId: string
  readonly paymentAttempt: number
  readonly amountCents: number
}

const queue = 'bench'
const payload = z.object({ orderId: z.string(), paymentAttempt: z.number().int(), amountCents: z.number().int() })

export const chargeOrder: Job<Charge> = defineJob('charge-order', {
  queue,
  payload,
  idempotencyKey: (charge) => `charge:${charge.orderId}:${charge.paymentAttempt}`,
})

/** The same without a business key, as it must be to be worked without an inbox. */
export const unkeyedCharge: Job<Charge> = defineJob('charge-unkeyed', { queue, payload, idempotencyKey: byJobId })

export const concurrency = 100
export const enqueueBatch = 1_000

/** A number of its own for each `n` from 0 to 2 ** 32 - 1, in no order (Knuth's multiplicative hash). */
export function scattered(n: number): number {
  return Math.imul(n, 2_654_435_761) >>> 0
}

/** Jobs `from` to `from + count`, each with a key of its own; the keys come in no order, as those of orders do. */
export function charges(from: number, count: number): Charge[] {
  return Array.from({ length: count }, (_, i) => {
    return { orderId: `order-${scattered(from + i)}`, paymentAttempt: 1, amountCents: 100 + ((from + i) % 10_000) }
  })
}

/** {@link charges} in batches of {@link enqueueBatch}. */
export function chargeBatches(from: number, count: number): Charge[][] {
  const batches: Charge[][] = []
  for (let next = from; next < from + count; next += enqueueBatch) {
    batches.push(charges(next, Math.min(enqueueBatch, from + count - next)))
  }
  return batches
}

/** Enqueues one batch after the other. Throws what the first refused job says. */
export async function enqueueAll(mq: Mq, batches: readonly Charge[][], job: Job<Charge> = chargeOrder): Promise<void> {
  for (const batch of batches) {
    const results = await mq.enqueueMany(job, batch)
    const failed = results.find((result) => result.status === 'failed')
    if (failed) throw failed.error
  }
}

/** Without progress for this long, whoever waits would wait for ever. */
const stallMs = 30_000

/** A count that goes up to `expected`; `reached` rejects if it stalls. */
export function countdown(
  what: string,
  expected: number,
): { readonly one: () => void; readonly reached: Promise<void> } {
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  let done = 0
  let seen = -1
  const watch = setInterval(() => {
    if (done === seen) reject(new Error(`${what}: stalled at ${done} of ${expected}`))
    seen = done
  }, stallMs)
  const one = (): void => {
    if (++done === expected) resolve()
  }
  return { one, reached: promise.finally(() => clearInterval(watch)) }
}

/**
 * Works what is queued with a handler that does nothing but count, and stops.
 * @throws Error if another number of handlers ran than `jobs`
 */
export async function workAll(mq: Mq, jobs: number, options: WorkerOptions = {}): Promise<void> {
  let ran = 0
  const { one, reached } = countdown('jobs worked', jobs)
  const worker = mq.worker({ concurrency, ...options }).handle(chargeOrder, () => {
    ran++
    one()
  })
  await worker.start()
  await reached
  await worker.stop()
  expectCount('handlers run', ran, jobs)
}
