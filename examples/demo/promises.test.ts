import type { DeadReason } from '@idemq/core'
import { expect, test } from 'vitest'
import type { Order } from '../data/orders.ts'
import { compare, type Dead, type Facts } from './promises.ts'

const order = (orderId: string, overrides: Partial<Order> = {}): Order => ({
  orderId,
  paymentAttempt: 1,
  amountCents: 500,
  card: 'card_ok_1',
  sku: 'cup',
  quantity: 2,
  email: 'ann@example.com',
  ...overrides,
})
const charge = (orderId: string, amountCents = 500) => ({
  chargeId: `ch_${orderId}_${amountCents}`,
  idempotencyKey: `charge:${orderId}:1/charge`,
  orderId,
  amountCents,
})
const reservation = (orderId: string) => ({ orderId, sku: 'cup', quantity: 2 })
const message = (businessId: string) => ({ type: 'order-reserved', recipient: 'ann@example.com', businessId })

const deadCharge = (reason: DeadReason): Dead => ({
  queue: 'payments',
  reason,
  error: 'Error',
  message: '',
  orderId: 'a',
  amountCents: 500,
})

/** Two orders: `a` went well after a double click; `b` is charged, and out of stock. */
const kept: Facts = {
  orders: [order('a'), order('a'), order('b')],
  charges: [charge('a'), charge('b')],
  stockBefore: { cup: 3 },
  stockAfter: { cup: 1 },
  reservations: [reservation('a')],
  messages: [message('a')],
  dead: [{ queue: 'inventory', reason: 'permanent', error: 'OutOfStock', message: '', orderId: 'b' }],
}

test('kept promises', () => {
  expect(compare(kept)).toEqual({ orders: 2, charged: 2, reserved: 1, notified: 1, doubled: 0, lost: 0, broken: [] })
})

test('of two amounts under one key one is charged, the other is a dead letter', () => {
  const orders = [order('a'), order('a', { amountCents: 400 }), order('b')]
  const other: Dead = {
    queue: 'payments',
    reason: 'key_mismatch',
    error: 'key_mismatch',
    message: '',
    orderId: 'a',
    amountCents: 400,
  }
  expect(compare({ ...kept, orders, dead: [...kept.dead, other] }).broken).toEqual([])
  expect(compare({ ...kept, orders }).lost).toBe(1)
})

test('a charge whose every answer was lost is a dead letter, and charged once all the same', () => {
  expect(compare({ ...kept, dead: [...kept.dead, deadCharge('exhausted')] }).broken).toEqual([])
})

test.each<[string, Partial<Facts>, { doubled?: number; lost?: number; broken: RegExp }]>([
  ['a charge twice', { charges: [...kept.charges, charge('b')] }, { doubled: 1, broken: /b was charged 2 times/ }],
  [
    'both amounts charged',
    {
      orders: [...kept.orders, order('b', { amountCents: 400 })],
      charges: [...kept.charges, charge('b', 400)],
    },
    { doubled: 1, broken: /b was charged 2 times/ },
  ],
  ['a charge missing', { charges: [charge('a')] }, { lost: 1, broken: /b over 500 is neither/ }],
  ['another amount', { charges: [charge('a'), charge('b', 499)] }, { lost: 1, broken: /charged 499, which nobody/ }],
  ['a charge for nobody', { charges: [...kept.charges, charge('c')] }, { broken: /done for c/ }],
  ['charged and dead', { dead: [...kept.dead, deadCharge('permanent')] }, { broken: /a over 500 is charged and yet/ }],
  [
    'reserved twice',
    { reservations: [reservation('a'), reservation('a')], stockBefore: { cup: 5 } },
    { doubled: 1, broken: /a was reserved 2 times/ },
  ],
  ['neither reserved nor dead', { dead: [] }, { lost: 1, broken: /b is neither reserved/ }],
  [
    'refused though there was stock',
    { stockBefore: { cup: 4 }, stockAfter: { cup: 2 } },
    { broken: /2 of cup are left/ },
  ],
  ['stock that vanished', { stockAfter: { cup: 0 } }, { broken: /3 before, 2 reserved, but 0 left/ }],
  ['stock below zero', { stockBefore: { cup: 1 }, stockAfter: { cup: -1 } }, { broken: /stock of cup is -1/ }],
  ['told twice', { messages: [message('a'), message('a')] }, { doubled: 1, broken: /told of a 2 times/ }],
  ['never told', { messages: [] }, { lost: 1, broken: /never told of a/ }],
  ['told of nothing', { messages: [...kept.messages, message('b')] }, { broken: /told of b, which is not reserved/ }],
])('%s', (_what, facts, { doubled = 0, lost = 0, broken }) => {
  const verdict = compare({ ...kept, ...facts })
  expect(verdict).toMatchObject({ doubled, lost })
  expect(verdict.broken.join('; ')).toMatch(broken)
})
