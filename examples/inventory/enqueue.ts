/**
 * Enqueues a reservation for every order of a file, and says for each line it refuses why.
 *
 * Run: node --conditions=idemq-source inventory/enqueue.ts [file]
 */
import type { EnqueueResult, Mq } from '@idemq/core'
import { openConnection } from '../connection.ts'
import { enqueueOrders, printEnqueued } from '../data/enqueue-orders.ts'
import { type Order, ordersFile, readOrders } from '../data/orders.ts'
import { reserveStock } from './jobs.ts'

/** Enqueues the reservation of each order. Doing it again is harmless: the keys are the same. */
export function enqueueReservations(mq: Mq, orders: readonly Order[]): Promise<EnqueueResult[]> {
  return mq.enqueueMany(
    reserveStock,
    orders.map(({ orderId, sku, quantity, email }) => ({ orderId, sku, quantity, email })),
  )
}

if (import.meta.main) {
  const { mq, close } = await openConnection()
  const lines = readOrders(process.argv[2] ?? ordersFile)
  printEnqueued(await enqueueOrders(lines, (orders) => enqueueReservations(mq, orders)))
  await close()
}
