import { writeFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { enqueueCharges } from '../payments/enqueue.ts'
import { openTemporaryBroker } from '../temporary-broker.ts'
import { enqueueOrders } from './enqueue-orders.ts'
import { readOrders } from './orders.ts'

const order = {
  orderId: 'order-1',
  paymentAttempt: 1,
  amountCents: 790,
  card: 'card_ok_1',
  sku: 'tea-cup',
  quantity: 1,
  email: 'ann@example.com',
}

test('what is refused is reported line by line, the rest is enqueued', async () => {
  await using broker = await openTemporaryBroker('?maxBodyBytes=40000')
  const path = broker.file('orders.jsonl')
  const lines = [
    order,
    { ...order, amountCents: -1 },
    { ...order, orderId: 'order-2', voucher: 1 },
    { ...order, orderId: 'order-3', card: 'x'.repeat(40_000) },
    { ...order, orderId: 'order-4' },
  ].map((line) => JSON.stringify(line))
  writeFileSync(path, [lines[0], '{"orderId":', '', ...lines.slice(1)].join('\r\n'))
  const enqueued = await enqueueOrders(readOrders(path), (orders) => enqueueCharges(broker.mq, orders))
  expect(enqueued).toMatchObject({
    orders: 2,
    refused: [
      { line: 2, reason: 'broken JSON' },
      { line: 4, reason: 'invalid amount' },
      { line: 5, reason: 'unknown field' },
      { line: 6, reason: 'not stored' },
    ],
  })
  expect((await broker.mq.status('payments')).stuck.ready).toBe(2)
})
