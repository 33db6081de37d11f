/**
 * Reserves stock. The reservation, the inbox row that says it was made and the outbox row of the customer's
 * notification are one commit: either all of it happened, or none.
 *
 * Run: node --conditions=idemq-source inventory/worker.ts
 */
import { type Outbox, PermanentError, type SqlTransaction, type Worker } from '@idemq/core'
import { openConnection } from '../connection.ts'
import { sendNotification } from '../notifications/jobs.ts'
import { stopOnSignal } from '../stop-on-signal.ts'
import { initialStock, prepareInventory } from './database.ts'
import { reserveStock } from './jobs.ts'

/** There is less than was ordered. Retrying does not help until somebody restocks: then replay the dead letters. */
export class OutOfStock extends PermanentError {
  override readonly name: string = 'OutOfStock'
}

/** Reserves each order once, and never more than there is. */
export function handleReservations(worker: Worker<SqlTransaction>, outbox: Outbox<SqlTransaction>): void {
  worker.handleInTransaction(reserveStock, async ({ orderId, sku, quantity, email }, _job, tx) => {
    const taken = await tx.query('UPDATE stock SET available = available - $1 WHERE sku = $2 AND available >= $1', [
      quantity,
      sku,
    ])
    if (taken.rowCount === 0) throw new OutOfStock(`fewer than ${quantity} of ${sku} left`)
    await tx.query('INSERT INTO reservations (order_id, sku, quantity) VALUES ($1, $2, $3)', [orderId, sku, quantity])
    await outbox.enqueue(tx, sendNotification, { type: 'order-reserved', recipient: email, businessId: orderId })
  })
}

if (import.meta.main) {
  const { mq, inbox, outbox, close } = await openConnection()
  await prepareInventory(inbox, initialStock())
  const worker = mq.worker({ inbox, concurrency: 16 })
  handleReservations(worker, outbox())
  await worker.start()
  console.log('working on inventory; Ctrl-C finishes what is in hand and stops')
  stopOnSignal(close)
}
