/** Shared by the side that enqueues and the side that works. */
import { defineJob, exponential } from '@idemq/core'
import { z } from 'zod'

export const reserveStock = defineJob('reserve-stock', {
  queue: 'inventory',
  payload: z.strictObject({
    orderId: z.string().min(1),
    sku: z.string().min(1),
    quantity: z.int().min(1),
    email: z.email(),
  }),
  // An order is reserved once, however often it is paid for or clicked.
  idempotencyKey: (reservation) => `reserve:${reservation.orderId}`,
  timeoutMs: 5_000,
  retry: { maxAttempts: 10, backoff: exponential({ baseMs: 100, maxMs: 2_000 }) },
})
