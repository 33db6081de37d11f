/**
 * Enqueues a charge for every order of a file, and says for each line it refuses why.
 *
 * Run: node --conditions=idemq-source payments/enqueue.ts [file]
 */
import type { EnqueueResult, Mq } from '@idemq/core'
import { openConnection } from '../connection.ts'
import { enqueueOrders, printEnqueued } from '../data/enqueue-orders.ts'
import { type Order, ordersFile, readOrders } from '../data/orders.ts'
import { chargeOrder } from './jobs.ts'

/** Enqueues the charge of each order. Doing it again is harmless: the keys are the same. */
export function enqueueCharges(mq: Mq, orders: readonly Order[]): Promise<EnqueueResult[]> {
  return mq.enqueueMany(
    chargeOrder,
    orders.map(({ orderId, paymentAttempt, amountCents, card }) => ({ orderId, paymentAttempt, amountCents, card })),
  )
}

if (import.meta.main) {
  const { mq, close } = await openConnection()
  const lines = readOrders(process.argv[2] ?? ordersFile)
  printEnqueued(await enqueueOrders(lines, (orders) => enqueueCharges(mq, orders)))
  await close()
}
