import { setTimeout as delay } from 'node:timers/promises'
import { openTemporaryBroker } from './temporary-broker.ts'
import { wellBehaved } from './payments/behaviour.ts'
import { enqueueCharges } from './payments/enqueue.ts'
import { startProvider } from './payments/provider.ts'
import { paymentProvider } from './payments/provider-client.ts'
import { handleCharges } from './payments/worker.ts'
import { chargeOrder } from './payments/jobs.ts'
const broker = await openTemporaryBroker()
const p = await startProvider({ ledgerPath: broker.file('l.db'), behaviour: { ...wellBehaved, maxMs: 30, cutShare: 0.6, unavailableShare: 0.1 } })
const ev: Record<string, number>[] = []
const second = await broker.another()
for (const { mq, inbox } of [broker, second]) {
  const n: Record<string, number> = {}
  ev.push(n)
  mq.on('*', (e) => { const k = e.type + ('reason' in e ? ':' + e.reason : ''); n[k] = (n[k] ?? 0) + 1 })
  const worker = mq.worker({ inbox, concurrency: 8 })
  handleCharges(worker, paymentProvider(p.url))
  await worker.start()
}
chargeOrder.circuit!.onChange((s) => process.stdout.write(s + ' '))
const orders = Array.from({ length: 60 }, (_, n) => ({ orderId: `o${n}`, paymentAttempt: 1, amountCents: 500 + n, card: 'card_ok', sku: 's', quantity: 1, email: 'a@example.com' }))
await enqueueCharges(broker.mq, [...orders, ...orders.slice(0, 20), ...orders.slice(0, 5)])
for (let i = 0; i < 25; i++) {
  await delay(1000)
  const s = (await broker.mq.status('payments')).stuck
  const s2 = (await second.mq.status('payments'))
  console.log(i, JSON.stringify(s), s2.stuck.runningHere, JSON.stringify(s2.next), JSON.stringify(ev))
  if (!s.ready && !s.delayed && !s.inFlight) break
}
process.exit(0)
