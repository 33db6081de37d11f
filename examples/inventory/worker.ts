/**
 * Reserves stock. The reservation, the inbox row that says it was made and the outbox row of the customer's
 * notification are one commit: either all of it happened, or none.
 *
 * Run: node --conditions=idemq-source inventory/worker.ts
 */
import { type Outbox, PermanentError, type SqlTransaction, type Worker } from '@idemq/core'
import { openConnection, openInbox, storeOptions } from '../connection.ts'
import { sendNotification } from '../notifications/jobs.ts'
import { stopOnSignal } from '../stop-on-signal.ts'
import { initialStock, prepareInventory } from './database.ts'
import { reserveStock } from './jobs.ts'

/** There is less than was ordered. Retrying does not help until somebody restocks: then replay the dead letters. */
export class OutOfStock extends PermanentError {
  override readonly name: string = 'OutOfStock'
}

export function handleReservations(worker: Worker, outbox: Outbox): void {
  worker.handleInTransaction(reserveStock, async ({ orderId, sku, quantity, email }, _job, transaction) => {
    const tx = transaction as SqlTransaction
    const taken = await tx.query(
      'UPDATE stock SET available = available - $1 WHERE sku = $2 AND available >= $3',
      [quantity, sku, quantity],
    )
    if (taken.rowCount === 0) throw new OutOfStock(`fewer than ${quantity} of ${sku} left`)
    await tx.query('INSERT INTO reservations (order_id, sku, quantity) VALUES ($1, $2, $3)', [orderId, sku, quantity])
    await outbox.enqueue(tx, sendNotification, { type: 'order-reserved', recipient: email, businessId: orderId })
  })
}

if (import.meta.main) {
  const connection = await openConnection()
  const inbox = await openInbox()
  await prepareInventory(inbox, initialStock())
  await inbox.close()
  const worker = connection.mq.worker({ ...storeOptions(connection), concurrency: 16 })
  handleReservations(worker, connection.mq.outbox(connection.outbox))
  await worker.start()
  console.log('working on inventory; Ctrl-C finishes what is in hand and stops')
  stopOnSignal(async () => {
    await worker.stop({ drainMs: 10_000 })
    await connection.close()
  })
}
