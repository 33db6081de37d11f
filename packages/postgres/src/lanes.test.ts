import type { Delivery } from '@idemq/core'
import { expect, it } from 'vitest'
import { message, openReceiver, queue, signal, testServer, texts } from '../test/server.ts'

const { admin, start } = await testServer()

const ordered = (text: string, partitionKey: string, delayMs = 0): ReturnType<typeof message> =>
  message(text, { partitionKey, ordered: true, delayMs })

it('senders and receivers at once: every key one at a time, in order, to the last message', async () => {
  const { adapter, schema, open } = await start({ pollMs: 20 })
  const keys = ['a', 'b', 'c']
  const each = 40
  const working = new Set<string>()
  const done = new Map<string, number[]>(keys.map((key) => [key, []]))
  const senders = keys.map(async (key) => {
    const { driver } = open()
    for (let n = 0; n < each; n++) await driver.send(queue, [ordered(`${key} ${n}`, key)], signal)
  })
  let left = keys.length * each
  const receivers = Array.from({ length: 3 }, async () => {
    const receiver = await openReceiver(open())
    const settle = async (delivery: Delivery): Promise<void> => {
      const [key = '', n] = texts([delivery])[0]!.split(' ')
      expect(working.has(key)).toBe(false)
      working.add(key)
      await Promise.resolve()
      done.get(key)!.push(Number(n))
      working.delete(key)
      const [answer] = await receiver.settle([{ delivery, outcome: 'ack' }], signal)
      expect(answer).toEqual({ status: 'settled' })
      left--
    }
    while (left > 0) await Promise.all((await receiver.receive(10, 50, signal)).map(settle))
  })
  await Promise.all([...senders, ...receivers])
  for (const key of keys) expect(done.get(key)).toEqual(Array.from({ length: each }, (_, n) => n))
  expect((await admin.query(`SELECT * FROM ${schema}.lane`)).rows).toEqual([])
  expect(await adapter.driver.stats(queue, signal)).toMatchObject({ ready: 0, delayed: 0, inFlight: 0 })
})

it('a delayed copy waits for nobody, joins the end when it is due, and is not counted for having waited', async () => {
  const { adapter } = await start({ pollMs: 10 })
  const { driver } = adapter
  await driver.send(queue, [ordered('retry', 'k', 150), ordered('first', 'k'), ordered('second', 'k')], signal)
  const receiver = await openReceiver(adapter)
  const [first] = await receiver.receive(10, 1_000, signal)
  expect(texts([first!])).toEqual(['first'])
  // Until the retry is due and has gone behind.
  await expect.poll(async () => (await receiver.receive(10, 20, signal)).length).toBe(0)
  await expect.poll(async () => (await driver.stats(queue, signal)).delayed).toBe(0)
  expect(await receiver.receive(10, 50, signal)).toEqual([])
  expect(await driver.stats(queue, signal)).toMatchObject({ ready: 2, inFlight: 1 })
  const seen: [string, number | undefined][] = []
  for (let delivery: Delivery | undefined = first; delivery; ) {
    await receiver.settle([{ delivery, outcome: 'ack' }], signal)
    ;[delivery] = await receiver.receive(10, 100, signal)
    if (delivery) seen.push([texts([delivery])[0]!, delivery.priorDeliveries])
  }
  expect(seen).toEqual([
    ['second', 0],
    ['retry', 0],
  ])
})

it('delayed copies of one key that are due together come one at a time', async () => {
  const { adapter } = await start({ pollMs: 10 })
  const batch = ['x', 'y', 'z'].map((text) => ordered(text, 'k', 30))
  await adapter.driver.send(queue, batch, signal)
  const receiver = await openReceiver(adapter)
  for (const expected of ['x', 'y', 'z']) {
    const deliveries = await receiver.receive(10, 2_000, signal)
    expect(texts(deliveries)).toEqual([expected])
    await receiver.settle([{ delivery: deliveries[0]!, outcome: 'ack' }], signal)
  }
})

it('equal keys of two queues have nothing to do with each other', async () => {
  const { adapter } = await start()
  const other = { name: 'others', group: 'default' }
  await adapter.driver.declare(other, 'create', signal)
  for (const of of [queue, other]) await adapter.driver.send(of, [ordered('1', 'k'), ordered('2', 'k')], signal)
  const receiver = await openReceiver(adapter)
  expect(texts(await receiver.receive(10, 0, signal))).toEqual(['1'])
  const another = await adapter.driver.open(other, { maxUnsettled: 10, leaseMs: 60_000, onLost: () => {} }, signal)
  const [head] = await another.receive(10, 0, signal)
  await another.settle([{ delivery: head!, outcome: 'ack' }], signal)
  expect(texts(await another.receive(10, 1_000, signal))).toEqual(['2'])
  expect(await receiver.receive(10, 0, signal)).toEqual([])
})

it('a copy that is sent twice, waiting or at the head, blocks nobody', async () => {
  const { adapter, schema } = await start()
  const pair = [ordered('1', 'k'), ordered('2', 'k')]
  await adapter.driver.send(queue, [...pair, ...pair], signal)
  await adapter.driver.send(queue, pair, signal)
  await adapter.driver.send(queue, [ordered('alone', 'l', 50)], signal)
  await adapter.driver.send(queue, [ordered('alone', 'l')], signal)
  const receiver = await openReceiver(adapter)
  const seen: string[] = []
  while (seen.length < 3) {
    const deliveries = await receiver.receive(1, 2_000, signal)
    seen.push(...texts(deliveries))
    await receiver.settle(
      deliveries.map((delivery) => ({ delivery, outcome: 'ack' })),
      signal,
    )
  }
  expect(seen.filter((text) => text !== 'alone')).toEqual(['1', '2'])
  expect((await admin.query(`SELECT * FROM ${schema}.lane`)).rows).toEqual([])
})
