import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { type Order, ordersFile, parseOrderLine, readOrders } from './orders.ts'

const order: Order = {
  orderId: 'order-1',
  paymentAttempt: 1,
  amountCents: 790,
  card: 'card_ok_1',
  sku: 'tea-cup',
  quantity: 1,
  email: 'ann@example.com',
}

test('a line that is an order comes back as it is', () => {
  expect(parseOrderLine(JSON.stringify(order), 7)).toEqual({ status: 'order', line: 7, order })
})

test.each([
  ['broken JSON', JSON.stringify(order).slice(0, 40)],
  ['broken JSON', 'order-1;790;tea-cup'],
  ['unknown field', JSON.stringify({ ...order, voucherCode: 'TEA5' })],
  ['invalid amount', JSON.stringify({ ...order, amountCents: 0 })],
  ['invalid amount', JSON.stringify({ ...order, amountCents: -1 })],
  ['invalid amount', JSON.stringify({ ...order, amountCents: 7.9 })],
  ['invalid amount', JSON.stringify({ ...order, amountCents: '790' })],
  ['invalid amount', JSON.stringify({ ...order, amountCents: undefined })],
  ['invalid order', JSON.stringify({ ...order, email: 'ann' })],
  ['invalid order', JSON.stringify({ ...order, quantity: 0 })],
  ['invalid order', JSON.stringify([order])],
  ['invalid order', 'null'],
])('%s: %s', (reason, text) => {
  expect(parseOrderLine(text, 3)).toMatchObject({ status: 'refused', line: 3, reason })
})

test('a refusal names the field', () => {
  const refused = parseOrderLine(JSON.stringify({ ...order, amountCents: -1 }), 1)
  expect(refused).toMatchObject({ detail: expect.stringMatching(/^amountCents: /) })
})

test('every line of the order file is either an order or refused, and it holds what the examples are about', async () => {
  const orders: Order[] = []
  const refusals = new Map<string, number>()
  let lines = 0
  for await (const line of readOrders()) {
    expect(line.line).toBe(++lines)
    if (line.status === 'order') orders.push(line.order)
    else refusals.set(line.reason, (refusals.get(line.reason) ?? 0) + 1)
  }
  expect(lines).toBe(readFileSync(ordersFile, 'utf8').trimEnd().split('\n').length)
  expect(Object.fromEntries(refusals)).toEqual({ 'broken JSON': 16, 'unknown field': 12, 'invalid amount': 12 })

  const amounts = new Map<string, number[]>()
  for (const { orderId, amountCents } of orders) amounts.set(orderId, [...(amounts.get(orderId) ?? []), amountCents])
  expect(amounts.size).toBe(2_000)
  const otherAmount = [...amounts.values()].filter((of) => new Set(of).size > 1)
  expect(otherAmount).toHaveLength(12)
  expect(orders.length - amounts.size - otherAmount.length).toBeGreaterThan(100)
  expect(orders.filter(({ card }) => card.startsWith('card_expired')).length).toBeGreaterThan(20)
})
