/**
 * The inventory example in one go: stock, the first orders of the file, a worker; then what is left, what is reserved
 * and what waits in the outbox. Run it again: nothing is reserved a second time.
 *
 * Run: node --conditions=idemq-source inventory/run.ts [orders, default 2000]
 */
import type { SqlTransaction } from '@idemq/core'
import { openConnection } from '../connection.ts'
import { type Order, readOrders } from '../data/orders.ts'
import { untilIdle } from '../until-idle.ts'
import { initialStock, inspectInventory, prepareInventory } from './database.ts'
import { enqueueReservations } from './enqueue.ts'
import { handleReservations } from './worker.ts'

const limit = Number(process.argv[2] ?? 2_000)
const { mq, inbox, outbox, close } = await openConnection()
await prepareInventory(inbox, initialStock())

const orders: Order[] = []
for await (const line of readOrders()) {
  if (line.status === 'order') orders.push(line.order)
  if (orders.length === limit) break
}
await enqueueReservations(mq, orders)
console.log(`${orders.length} clicks for ${new Set(orders.map(({ orderId }) => orderId)).size} orders enqueued`)

const worker = mq.worker<SqlTransaction>({ inbox, concurrency: 16 })
handleReservations(worker, outbox())
await worker.start()
await untilIdle(mq, ['inventory'], { signal: AbortSignal.timeout(120_000) })

const { stock, reservations } = await inspectInventory(inbox)
const before = initialStock()
for (const [sku, left] of Object.entries(stock).toSorted()) {
  const pieces = reservations.filter((of) => of.sku === sku).reduce((sum, { quantity }) => sum + quantity, 0)
  console.log(`${sku.padEnd(12)} ${before[sku]} in stock = ${pieces} reserved + ${left} left`)
}
console.log(`${reservations.length} reservations, ${(await outbox().stats()).pending} notifications wait in the outbox`)
for (const { error, count, message } of await mq.deadLetters('inventory').groups()) {
  console.log(`dead letters: ${count} × ${error}: ${message}`)
}
await close()
