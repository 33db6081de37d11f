/**
 * Charges orders.
 *
 * Run: node --conditions=idemq-source payments/worker.ts (PROVIDER_URL says where the provider listens)
 */
import type { Worker } from '@idemq/core'
import { openConnection } from '../connection.ts'
import { stopOnSignal } from '../stop-on-signal.ts'
import { chargeOrder } from './jobs.ts'
import { type PaymentProvider, paymentProvider } from './provider-client.ts'

/**
 * Each attempt to pay is charged once: the inbox keeps a finished charge from running again, and where a worker died
 * before it could say so, the provider knows the key and gives the answer it gave.
 */
export function handleCharges(worker: Worker, provider: PaymentProvider): void {
  worker.handle(chargeOrder, ({ orderId, amountCents, card }, job) =>
    job.step('charge', ({ idempotencyKey, signal }) =>
      provider.charge({ orderId, amountCents, card }, { idempotencyKey, signal }),
    ),
  )
}

if (import.meta.main) {
  const { mq, inbox, close } = await openConnection()
  const worker = mq.worker({ inbox, concurrency: 16 })
  handleCharges(worker, paymentProvider(process.env.PROVIDER_URL ?? 'http://127.0.0.1:8787'))
  await worker.start()
  console.log('working on payments; Ctrl-C finishes what is in hand and stops')
  stopOnSignal(close)
}
