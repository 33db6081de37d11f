/** Shared by the side that enqueues and the side that works. */
import { defineJob, exponential } from '@idemq/core'
import { z } from 'zod'

export const sendNotification = defineJob('send-notification', {
  queue: 'notifications',
  payload: z.strictObject({
    type: z.enum(['order-reserved']),
    recipient: z.email(),
    /** What it is about, in the business's own numbering: the order. */
    businessId: z.string().min(1),
  }),
  // Nobody wants to hear the same about the same order twice.
  idempotencyKey: ({ type, recipient, businessId }) => `notify:${type}:${recipient}:${businessId}`,
  timeoutMs: 5_000,
  retry: { maxAttempts: 10, backoff: exponential({ baseMs: 100, maxMs: 2_000 }) },
})
