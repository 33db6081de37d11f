import type { SqlTransaction } from '@idemq/core'
import { expect, onTestFinished, test } from 'vitest'
import type { Order } from '../data/orders.ts'
import { openTemporaryBroker } from '../temporary-broker.ts'
import { untilIdle } from '../until-idle.ts'
import { addStock, inspectInventory, prepareInventory, type Stock } from './database.ts'
import { enqueueReservations } from './enqueue.ts'
import { reserveStock } from './jobs.ts'
import { handleReservations } from './worker.ts'

const order = (n: number, sku: string, quantity: number): Order => ({
  orderId: `order-${n}`,
  paymentAttempt: 1,
  amountCents: 500,
  card: 'card_ok_1',
  sku,
  quantity,
  email: `customer-${n}@example.com`,
})

/** Three workers on one broker, and stock. */
async function warehouse(stock: Stock) {
  const broker = await openTemporaryBroker()
  onTestFinished(() => broker[Symbol.asyncDispose]())
  await prepareInventory(broker.inbox, stock)
  for (const { mq, inbox, outbox } of [broker, await broker.another(), await broker.another()]) {
    const worker = mq.worker<SqlTransaction>({ inbox, concurrency: 8 })
    handleReservations(worker, outbox())
    await worker.start()
  }
  return {
    mq: broker.mq,
    idle: () => untilIdle(broker.mq, [reserveStock.queue], { signal: AbortSignal.timeout(30_000) }),
    restock: (sku: string, pieces: number) => addStock(broker.inbox, sku, pieces),
    inspect: () => inspectInventory(broker.inbox),
    inOutbox: async () => (await broker.outbox().stats()).pending,
  }
}

test('stock is never below zero and no order is reserved twice, however many want it at once', async () => {
  const { mq, idle, inspect, inOutbox } = await warehouse({ cup: 50, pot: 1_000 })
  const orders = Array.from({ length: 120 }, (_, n) => order(n, n % 2 ? 'cup' : 'pot', 1 + (n % 3)))
  await enqueueReservations(mq, [...orders, ...orders, ...orders.slice(0, 30)])
  await idle()

  const { stock, reservations } = await inspect()
  const taken = (sku: string): number =>
    reservations.filter((of) => of.sku === sku).reduce((sum, { quantity }) => sum + quantity, 0)
  expect(stock.cup! + taken('cup')).toBe(50)
  expect(stock.pot! + taken('pot')).toBe(1_000)
  // Sold out as far as quantities go: a single piece would still fit if one were left.
  expect(stock.cup).toBe(0)
  expect(new Set(reservations.map(({ orderId }) => orderId)).size).toBe(reservations.length)
  expect(reservations.filter(({ sku }) => sku === 'pot')).toHaveLength(60)
  // One commit: as many notifications wait as reservations were made.
  expect(await inOutbox()).toBe(reservations.length)

  const refused = new Set<string>()
  for await (const { error, envelope } of mq.deadLetters('inventory').scan()) {
    expect(error).toBe('OutOfStock')
    refused.add((envelope!.payload as Order).orderId)
  }
  expect(refused.size + reservations.length).toBe(120)
})

test('refused as out of stock, nothing of it stays; restocked and replayed, it is reserved', async () => {
  const { mq, idle, inspect, inOutbox, restock } = await warehouse({ cup: 1 })
  await enqueueReservations(mq, [order(1, 'cup', 2)])
  await idle()
  expect(await inspect()).toEqual({ stock: { cup: 1 }, reservations: [] })
  expect(await inOutbox()).toBe(0)
  const letters = mq.deadLetters('inventory')
  expect(await letters.groups()).toMatchObject([{ error: 'OutOfStock', count: 1 }])

  await restock('cup', 5)
  expect(await letters.replay()).toMatchObject({ replayed: 1 })
  await idle()
  expect(await inspect()).toEqual({
    stock: { cup: 4 },
    reservations: [{ orderId: 'order-1', sku: 'cup', quantity: 2 }],
  })
  expect(await letters.groups()).toEqual([])
})
