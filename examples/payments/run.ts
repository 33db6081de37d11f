/**
 * The payments example in one go: a provider with a bad day, the first orders of the file, a worker; then what the
 * provider's ledger and the dead letters say. Run it again: nothing is charged a second time.
 *
 * Run: node --conditions=idemq-source payments/run.ts [orders, default 200]
 */
import { openConnection } from '../connection.ts'
import { type Order, readOrders } from '../data/orders.ts'
import { untilIdle } from '../until-idle.ts'
import { badDay } from './behaviour.ts'
import { enqueueCharges } from './enqueue.ts'
import type { Charge } from './ledger.ts'
import { startProvider } from './provider.ts'
import { paymentProvider } from './provider-client.ts'
import { handleCharges } from './worker.ts'

const limit = Number(process.argv[2] ?? 200)
const { mq, inbox, close } = await openConnection()
const provider = await startProvider({ ledgerPath: '.data/payments-ledger.db', behaviour: badDay })

let duplicates = 0
let retries = 0
mq.on('deduplicated', () => void duplicates++)
mq.on('retry_scheduled', () => void retries++)

const orders: Order[] = []
for await (const line of readOrders()) {
  if (line.status === 'refused') console.log(`line ${line.line} refused: ${line.reason}: ${line.detail}`)
  else orders.push(line.order)
  if (orders.length === limit) break
}
await enqueueCharges(mq, orders)
console.log(`${orders.length} clicks for ${new Set(orders.map(({ orderId }) => orderId)).size} orders enqueued`)

const worker = mq.worker({ inbox, concurrency: 16 })
handleCharges(worker, paymentProvider(provider.url))
await worker.start()
await untilIdle(mq, ['payments'], { signal: AbortSignal.timeout(120_000) })

const charges = (await (await fetch(`${provider.url}/admin/charges`)).json()) as Charge[]
console.log(`${charges.length} charges of ${new Set(charges.map(({ orderId }) => orderId)).size} orders in the ledger`)
console.log(`${duplicates} duplicates caught, ${retries} retries on the way`)
for (const { error, count, message } of await mq.deadLetters('payments').groups()) {
  console.log(`dead letters: ${count} × ${error}: ${message}`)
}
await close()
await provider.close()
