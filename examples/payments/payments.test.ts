import { expect, onTestFinished, test } from 'vitest'
import type { Order } from '../data/orders.ts'
import { compare, type Dead } from '../demo/promises.ts'
import { openTemporaryBroker } from '../temporary-broker.ts'
import { untilIdle } from '../until-idle.ts'
import { type Behaviour, wellBehaved } from './behaviour.ts'
import { enqueueCharges } from './enqueue.ts'
import { chargeOrder } from './jobs.ts'
import type { Charge } from './ledger.ts'
import { startProvider } from './provider.ts'
import { paymentProvider } from './provider-client.ts'
import { handleCharges } from './worker.ts'

const order = (n: number, overrides: Partial<Order> = {}): Order => ({
  orderId: `order-${n}`,
  paymentAttempt: 1,
  amountCents: 500 + n,
  card: 'card_ok_1',
  sku: 'tea-cup',
  quantity: 1,
  email: 'ann@example.com',
  ...overrides,
})

/** Two workers on one broker, and a provider. */
async function shop(behaviour: Behaviour) {
  const broker = await openTemporaryBroker()
  const provider = await startProvider({ ledgerPath: broker.file('ledger.db'), behaviour })
  onTestFinished(async () => {
    await broker[Symbol.asyncDispose]()
    await provider.close()
  })
  for (const { mq, inbox } of [broker, await broker.another()]) {
    const worker = mq.worker({ inbox, concurrency: 8 })
    handleCharges(worker, paymentProvider(provider.url))
    await worker.start()
  }
  return {
    mq: broker.mq,
    idle: () => untilIdle(broker.mq, [chargeOrder.queue], { signal: AbortSignal.timeout(50_000) }),
    charges: async () => (await (await fetch(`${provider.url}/admin/charges`)).json()) as Charge[],
    admin: (path: string) => fetch(`${provider.url}/admin/${path}`, { method: 'POST' }),
  }
}

test('each order is charged once: double clicks, cut lines, a slow and a busy provider', async () => {
  const { mq, idle, charges } = await shop({ ...wellBehaved, maxMs: 30, cutShare: 0.2, unavailableShare: 0.05 })
  const orders = Array.from({ length: 60 }, (_, n) => order(n))
  const clicks = [...orders, ...orders.slice(0, 20), ...orders.slice(0, 5)]
  for (const result of await enqueueCharges(mq, clicks)) expect(result.status).toBe('stored')
  await idle()
  const made = await charges()
  expect(made.map(({ orderId, amountCents }) => `${orderId} ${amountCents}`).toSorted()).toEqual(
    orders.map(({ orderId, amountCents }) => `${orderId} ${amountCents}`).toSorted(),
  )
  expect(await mq.deadLetters('payments').groups()).toEqual([])
})

test('declined cards wait among the dead letters; reissued and replayed they are charged once', async () => {
  const { mq, idle, charges, admin } = await shop(wellBehaved)
  const declined = [1, 2, 3].map((n) => order(n, { card: `card_expired_${n}` }))
  await enqueueCharges(mq, [order(0), ...declined, declined[0]!])
  await idle()
  expect(await charges()).toHaveLength(1)
  const letters = mq.deadLetters('payments')
  expect(await letters.groups()).toMatchObject([{ error: 'CardDeclined', reason: 'permanent', job: 'charge-order' }])

  await admin('reissue-cards')
  const filter = { error: 'CardDeclined' }
  const { matched } = await letters.replay({ filter, dryRun: true })
  expect(await letters.replay({ filter })).toMatchObject({ matched, replayed: matched })
  await idle()
  expect((await charges()).map(({ orderId }) => orderId).toSorted()).toEqual([0, 1, 2, 3].map((n) => `order-${n}`))
  expect(await letters.groups()).toEqual([])
})

test('another amount under the same key is never charged', async () => {
  const { mq, idle, charges } = await shop({ ...wellBehaved, minMs: 20, maxMs: 20 })
  const orders = [order(1), order(1, { amountCents: 400 }), order(2)]
  await enqueueCharges(mq, orders)
  await idle()
  const dead: Dead[] = []
  for await (const { reason, error, message, envelope } of mq.deadLetters('payments').scan()) {
    const { orderId, amountCents } = envelope!.payload as Order
    dead.push({ queue: 'payments', reason, error, message, orderId, amountCents })
  }
  expect(dead).toMatchObject([{ error: 'key_mismatch', orderId: 'order-1' }])
  const verdict = compare({
    orders,
    charges: await charges(),
    stockBefore: { 'tea-cup': 0 },
    stockAfter: { 'tea-cup': 0 },
    reservations: [],
    messages: [],
    dead: [...dead, ...['order-1', 'order-2'].map((orderId) => ({ ...dead[0]!, queue: 'inventory', orderId }))],
  })
  expect(verdict).toMatchObject({ charged: 2, doubled: 0, lost: 0, broken: [] })
})

test('an invalid charge is refused at enqueue and nothing is sent', async () => {
  await using broker = await openTemporaryBroker()
  const charge = { orderId: 'order-1', paymentAttempt: 1, amountCents: -5, card: 'card_ok_1' }
  await expect(broker.mq.enqueue(chargeOrder, charge)).rejects.toMatchObject({
    code: 'INVALID_PAYLOAD',
    message: expect.stringContaining('amountCents'),
  })
  expect((await broker.mq.status('payments')).stuck).toMatchObject({ ready: 0 })
})
