import { expect, it } from 'vitest'
import { rungs } from './delays.ts'
import { names } from './names.ts'

const topics = names('')

it('leaves ordinary names as they are', () => {
  expect(topics.queue('orders-eu.v2')).toBe('orders-eu.v2')
  expect(topics.group('orders', 'billing')).toBe('orders..billing')
  expect(topics.retry('orders', 'billing', rungs[1]!)).toBe('orders..billing..retry-1s')
  expect(topics.dead('orders', 'billing')).toBe('orders..billing..dead')
  expect(names('shop.').queue('orders')).toBe('shop.orders')
})

it('never gives two topics names that Kafka takes for one, nor names it refuses', () => {
  const parts = ['a', '.', '_', '-', 'u', 'd']
  const queues = ['']
  for (const queue of queues) if (queue.length < 5) queues.push(...parts.map((part) => queue + part))
  const seen = new Map<string, string>()
  for (const queue of queues.map((end) => `q${end}`)) {
    for (const topic of [topics.queue(queue), topics.dead(queue, 'a_b')]) {
      expect(topic).toMatch(/^[A-Za-z0-9._-]{1,249}$/)
      const collides = topic.replaceAll('_', '.')
      expect(seen.get(collides)).toBeUndefined()
      seen.set(collides, topic)
    }
  }
})

it('keeps the longest names apart within what Kafka allows', () => {
  const long = (end: string): string => `${'_'.repeat(99)}${end}`
  const all = ['x', 'y'].flatMap((end) => [topics.queue(`q${long(end)}`), topics.dead(`q${long('x')}`, long(end))])
  expect(new Set(all).size).toBe(4)
  for (const topic of all) expect(topic).toMatch(/^[A-Za-z0-9._-]{1,249}$/)
})
