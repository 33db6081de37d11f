/** Shared by the side that enqueues and the side that works. */
import { circuitBreaker, defineJob, exponential } from '@idemq/core'
import { z } from 'zod'

export const chargeOrder = defineJob('charge-order', {
  queue: 'payments',
  payload: z.strictObject({
    orderId: z.string().min(1),
    paymentAttempt: z.int().min(1),
    amountCents: z.int().min(1),
    card: z.string().min(1),
  }),
  // One try of a customer to pay is one action: a double click has the same key, a new try after a decline another.
  idempotencyKey: (charge) => `charge:${charge.orderId}:${charge.paymentAttempt}`,
  timeoutMs: 5_000,
  retry: { maxAttempts: 10, backoff: exponential({ baseMs: 200, maxMs: 5_000 }) },
  circuit: circuitBreaker({ name: 'payment provider', windowCalls: 20, cooldownMs: 1_500 }),
})
