import { bedCluster } from '@idemq/conformance/bed'
import type { Delivery, Outgoing, Receiver } from '@idemq/core'
import { afterAll, expect, it } from 'vitest'
import { adminOf } from '../test/admin.ts'
import { cables, message, newQueue, open, openReceiver, quick, signal, texts } from '../test/server.ts'
import { names } from './names.ts'
import type { KafkaWarning } from './warning.ts'

// A cluster of one: for transactions a broker must reach itself, at an address that it knows.
const alone = {
  KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR: '1',
  KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR: '1',
  KAFKA_TRANSACTION_STATE_LOG_MIN_ISR: '1',
}
const { nodes, url, stop } = await bedCluster('kafka', 1, { env: alone })
afterAll(stop)
const server = nodes[0]!
const { admin } = await adminOf(server)

async function take(receiver: Receiver, count: number, withinMs = 10_000): Promise<Delivery[]> {
  const taken: Delivery[] = []
  const endMs = performance.now() + withinMs
  while (taken.length < count && performance.now() < endMs) {
    taken.push(...(await receiver.receive(count - taken.length, 500, signal)))
  }
  expect(taken.length).toBe(count)
  return taken
}

async function ack(receiver: Receiver, deliveries: readonly Delivery[]): Promise<string[]> {
  const batch = deliveries.map((delivery) => ({ delivery, outcome: 'ack' as const }))
  return (await receiver.settle(batch, signal)).map(({ status }) => status)
}

const numbered = (count: number, change: (i: number) => Partial<Outgoing> = () => ({})): Outgoing[] =>
  Array.from({ length: count }, (_, i) => message(String(i), change(i)))

it('a long job holds nothing up, and a crash brings back that one alone, counted', async () => {
  const own = cables()
  const adapter = open(url, { partitions: 1, client: own.client })
  const queue = newQueue()
  await adapter.driver.declare(queue, 'create', signal)
  const receiver = await openReceiver(adapter, queue)
  await adapter.driver.send({ name: queue.name }, [message('long')], signal)
  const [long] = await take(receiver, 1)
  for (let sent = 0; sent < 3_000; sent += 1_000)
    await adapter.driver.send({ name: queue.name }, numbered(1_000), signal)
  for (let done = 0; done < 3_000; ) {
    const batch = await receiver.receive(100, 5_000, signal)
    await ack(receiver, batch.toReversed())
    done += batch.length
  }
  await own.cut(quick.sessionTimeoutMs + 1_500)
  const next = await openReceiver(open(url, { partitions: 1 }), queue)
  const [again] = await take(next, 1)
  expect([texts([again!]), again!.priorDeliveries]).toEqual([['long'], 1])
  expect(await next.receive(1, 500, signal)).toEqual([])
  expect(await ack(receiver, [long!])).toEqual(['lost'])
})

it('work in hand outlives a rebalance where its partition stays, and is told lost where it moves', async () => {
  const lost: Delivery[] = []
  const one = open(url, { partitions: 4 })
  const queue = newQueue()
  await one.driver.declare(queue, 'create', signal)
  const receiver = await openReceiver(one, queue, { onLost: (deliveries) => lost.push(...deliveries) })
  await one.driver.send({ name: queue.name }, numbered(40), signal)
  const held = await take(receiver, 40)
  const other = await openReceiver(open(url, { partitions: 4 }), queue)
  await expect.poll(() => lost.length, { timeout: 10_000 }).toBeGreaterThan(0)
  const kept = held.filter((delivery) => !lost.includes(delivery))
  const moved = await take(other, lost.length)
  expect(texts(moved).sort()).toEqual(texts(lost).sort())
  // It was given back, so it is no crash.
  expect(new Set(moved.map(({ priorDeliveries }) => priorDeliveries))).toEqual(new Set([0]))
  expect(await ack(receiver, lost)).toEqual(lost.map(() => 'lost'))
  expect(await ack(receiver, kept)).toEqual(kept.map(() => 'settled'))
  expect(await ack(other, moved)).toEqual(moved.map(() => 'settled'))
  expect([await receiver.receive(1, 300, signal), await other.receive(1, 300, signal)]).toEqual([[], []])
})

it('partitions without work in hand are the ones that move, and those of a receiver that stops go at once', async () => {
  const lost: Delivery[] = []
  const one = open(url)
  const queue = newQueue()
  await one.driver.declare(queue, 'create', signal)
  const receiver = await openReceiver(one, queue, { onLost: (deliveries) => lost.push(...deliveries) })
  const lane = { partitionKey: 'a', ordered: true }
  await one.driver.send({ name: queue.name }, [message('first', lane)], signal)
  const [first] = await take(receiver, 1)
  const other = await openReceiver(open(url), queue)
  await one.driver.send({ name: queue.name }, numbered(20), signal)
  await take(other, 1)
  expect(lost).toEqual([])
  const third = await openReceiver(open(url), queue)
  await other.stop()
  await other.close()
  await receiver.stop()
  await one.driver.send({ name: queue.name }, numbered(20), signal)
  await take(third, 1)
  expect([lost, await ack(receiver, [first!])]).toEqual([[], ['settled']])
  await receiver.close()
})

it('delays go down the ladder: none early, a group at a time or all of them', async () => {
  const adapter = open(url)
  const queue = newQueue()
  const audit = { ...queue, group: 'audit' }
  for (const each of [queue, audit]) await adapter.driver.declare(each, 'create', signal)
  const sentMs = Date.now()
  // More than are waited for in memory, so that some go on to a lower rung.
  const delays = numbered(300, (i) => ({ delayMs: 1_000 + i * 8 })).map((each) => ({
    ...each,
    body: Buffer.from(String(sentMs + each.delayMs)),
  }))
  await adapter.driver.send(queue, delays, signal)
  await adapter.driver.send({ name: queue.name }, [message(String(sentMs + 1_500), { delayMs: 1_500 })], signal)
  const [mine, theirs] = [
    await openReceiver(adapter, queue, { maxUnsettled: 1_000 }),
    await openReceiver(adapter, audit),
  ]
  const lateMs: number[] = []
  for (let seen = 0; seen < 301; ) {
    const got = await mine.receive(1_000, 5_000, signal)
    lateMs.push(...texts(got).map((due) => Date.now() - Number(due)))
    await ack(mine, got)
    seen += got.length
  }
  expect(lateMs.length).toBe(301)
  expect(Math.min(...lateMs)).toBeGreaterThanOrEqual(0)
  expect(Math.max(...lateMs)).toBeLessThan(3_000)
  const [fact] = await take(theirs, 1)
  expect(Date.now()).toBeGreaterThanOrEqual(Number(texts([fact!])[0]))
  expect([await mine.receive(1, 300, signal), await theirs.receive(1, 300, signal)]).toEqual([[], []])
})

it('a retry of a second is not behind one of an hour', async () => {
  const adapter = open(url, { partitions: 1 })
  const queue = newQueue()
  await adapter.driver.declare(queue, 'create', signal)
  await adapter.driver.send(
    queue,
    numbered(600, () => ({ delayMs: 3_600_000 })),
    signal,
  )
  const sentMs = performance.now()
  await adapter.driver.send(queue, [message('soon', { delayMs: 1_000 })], signal)
  const receiver = await openReceiver(adapter, queue)
  expect(texts(await take(receiver, 1))).toEqual(['soon'])
  const tookMs = performance.now() - sentMs
  expect(tookMs).toBeGreaterThanOrEqual(999)
  expect(tookMs).toBeLessThan(3_000)
})

it('goes on where the broker deleted what was not done, says so, and skips nothing that is there', async () => {
  const warnings: KafkaWarning[] = []
  const adapter = open(url, { partitions: 1, onWarning: (warning) => warnings.push(warning) })
  const queue = newQueue()
  await adapter.driver.declare(queue, 'create', signal)
  await adapter.driver.send({ name: queue.name }, numbered(10), signal)
  const first = await openReceiver(adapter, queue)
  const held = await take(first, 5)
  await ack(first, held.slice(3))
  await first.close()
  const topic = names('').queue(queue.name)
  // The client deletes only of topics that it has looked at.
  await admin.fetchTopicOffsets(topic)
  await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '8' }] })
  const next = await openReceiver(adapter, queue)
  expect(texts(await take(next, 2))).toEqual(['8', '9'])
  expect(warnings.map(({ code }) => code)).toEqual(['IDEMQ_KAFKA_DELETED'])
  await adapter.driver.send({ name: queue.name }, [message('new')], signal)
  expect(texts(await take(next, 1))).toEqual(['new'])
})

it('a group that is set back gets its facts again', async () => {
  const adapter = open(url, { partitions: 1 })
  const queue = newQueue()
  await adapter.driver.declare(queue, 'create', signal)
  await adapter.driver.send({ name: queue.name }, numbered(5), signal)
  const first = await openReceiver(adapter, queue)
  await ack(first, (await take(first, 5)).slice(1))
  await first.close()
  const [topic, groupId] = [names('').queue(queue.name), names('').group(queue.name, 'default')]
  await admin.setOffsets({ groupId, topic, partitions: [{ partition: 0, offset: '2' }] })
  const next = await openReceiver(adapter, queue)
  expect(texts(await take(next, 3))).toEqual(['2', '3', '4'])
})

it('takes what other producers put there, as bytes, and skips what they aborted', async () => {
  const { native } = await adminOf(server)
  const adapter = open(url, { partitions: 1 })
  const queue = newQueue()
  await adapter.driver.declare(queue, 'create', signal)
  const topic = names('').queue(queue.name)
  const producer = native.producer({
    transactionalId: queue.name,
    maxInFlightRequests: 1,
    idempotent: true,
    retry: { retries: 50 },
  })
  await producer.connect()
  for (const outcome of ['abort', 'commit'] as const) {
    const transaction = await producer.transaction()
    await transaction.send({ topic, messages: [{ value: outcome }, { value: null }] })
    await transaction[outcome]()
  }
  await producer.disconnect()
  const receiver = await openReceiver(adapter, queue)
  const got = await take(receiver, 2)
  expect(texts(got)).toEqual(['commit', ''])
  expect(await ack(receiver, got)).toEqual(['settled', 'settled'])
  await receiver.close()
  expect(await (await openReceiver(adapter, queue)).receive(1, 500, signal)).toEqual([])
})

it('reads new partitions of a topic that grew', async () => {
  const adapter = open(url, { partitions: 1, client: { brokers: [`${server.host}:${server.port}`] } })
  const queue = newQueue()
  await adapter.driver.declare(queue, 'create', signal)
  await admin.createPartitions({ topicPartitions: [{ topic: names('').queue(queue.name), count: 3 }] })
  await expect(adapter.driver.declare(queue, 'check', signal)).rejects.toMatchObject({ code: 'QUEUE_MISMATCH' })
  const receiver = await openReceiver(adapter, queue)
  await adapter.driver.send({ name: queue.name }, numbered(30), signal)
  await take(receiver, 30)
})

it('a dead letter is what was last sent under its copyId, until it is removed', async () => {
  const adapter = open(url)
  const queue = newQueue()
  await adapter.driver.declare(queue, 'create', signal)
  const [first, second] = [message('first'), message('second')]
  await adapter.driver.sendDead(queue, [first, second, { ...first, body: Buffer.from('again') }], signal)
  const shown: string[] = []
  const show = async (): Promise<string[]> => {
    shown.length = 0
    await adapter.driver.scanDead(
      queue,
      async ({ body }) => {
        shown.push(Buffer.from(body).toString())
        return 'keep'
      },
      signal,
    )
    return [...shown]
  }
  expect(await show()).toEqual(['second', 'again'])
  await adapter.driver.scanDead(queue, async ({ id }) => (id === first.copyId ? 'remove' : 'keep'), signal)
  expect(await show()).toEqual(['second'])
  await adapter.driver.sendDead(queue, [first], signal)
  expect(await show()).toEqual(['second', 'first'])
})
