import { statSync } from 'node:fs'
import { DatabaseSync } from 'node:sqlite'
import {
  type Clock,
  type Delivery,
  type Driver,
  ManualClock,
  type Outgoing,
  type Receiver,
  systemClock,
} from '@idemq/core'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { tempFile } from '../test/temp-file.ts'
import { sqlite } from './index.ts'

const { signal } = new AbortController()
const queue = { name: 'orders', group: 'default' }

async function connect(path: string, clock: Clock = systemClock): Promise<Driver> {
  const { driver } = sqlite({ path, clock })
  onTestFinished(() => driver.close())
  await driver.declare(queue, 'create', signal)
  return driver
}

function open(driver: Driver, leaseMs = 10_000, maxUnsettled = 100): Promise<Receiver> {
  return driver.open(queue, { maxUnsettled, leaseMs, onLost: () => {} }, signal)
}

function message(id: string, extra: Partial<Outgoing> = {}): Outgoing {
  return { copyId: id, jobId: id, body: Buffer.from(id), partitionKey: id, ordered: false, delayMs: 0, ...extra }
}

function ids(deliveries: readonly Delivery[]): string[] {
  return deliveries.map(({ body }) => Buffer.from(body).toString())
}

async function ack(receiver: Receiver, ...deliveries: readonly (Delivery | undefined)[]) {
  const answers = await receiver.settle(
    deliveries.map((delivery) => ({ delivery: delivery!, outcome: 'ack' })),
    signal,
  )
  return answers.map(({ status }) => status)
}

describe('several connections', () => {
  it('keep one of an ordering key in flight, in order, while others pass', async () => {
    const path = tempFile()
    const [left, right] = [await connect(path), await connect(path)]
    const [a, b] = [await open(left), await open(right)]
    const ordered = { partitionKey: 'k', ordered: true }
    await left.send(queue, [message('1', ordered), message('2', ordered)], signal)
    await right.send(queue, [message('3', ordered), message('free')], signal)
    const first = await a.receive(10, 0, signal)
    expect(ids(first)).toEqual(['1', 'free'])
    expect(await b.receive(10, 0, signal)).toEqual([])
    expect(await left.stats(queue, signal)).toMatchObject({ ready: 2, delayed: 0, inFlight: 2 })
    await ack(a, first[0])
    const second = await b.receive(10, 0, signal)
    expect(ids(second)).toEqual(['2'])
    expect(await a.receive(10, 0, signal)).toEqual([])
    await b.close()
    const again = await a.receive(10, 0, signal)
    expect(ids(again)).toEqual(['2'])
    await ack(a, again[0])
    expect(ids(await a.receive(10, 0, signal))).toEqual(['3'])
  })

  it('wake each other within pollMs', async () => {
    const path = tempFile()
    const [left, right] = [await connect(path), await connect(path)]
    const waiting = (await open(right)).receive(1, 30_000, signal)
    await left.send(queue, [message('a')], signal)
    expect(ids(await waiting)).toEqual(['a'])
  })

  it('fence each other by token: a settle after another took it changes nothing', async () => {
    const path = tempFile()
    const clock = new ManualClock()
    const [a, b] = [await open(await connect(path, clock)), await open(await connect(path, clock))]
    const driver = await connect(path, clock)
    await driver.send(queue, [message('a')], signal)
    const [stale] = await a.receive(1, 0, signal)
    await clock.advance(10_000)
    const [fresh] = await b.receive(1, 0, signal)
    expect(fresh).toMatchObject({ priorDeliveries: 1 })
    expect(await ack(a, stale)).toEqual(['lost'])
    expect(await ack(b, fresh)).toEqual(['settled'])
    // SQLite uses the row id again; the old delivery still fits nothing.
    await driver.send(queue, [message('b')], signal)
    const [next] = await b.receive(1, 0, signal)
    expect(await ack(a, stale)).toEqual(['lost'])
    expect(await ack(b, fresh)).toEqual(['lost'])
    expect(await ack(b, next)).toEqual(['settled'])
  })
})

describe('ordering keys', () => {
  it('let a delayed copy join the end of its key when it is due', async () => {
    const clock = new ManualClock()
    const driver = await connect(tempFile(), clock)
    const receiver = await open(driver)
    const ordered = { partitionKey: 'k', ordered: true }
    await driver.send(
      queue,
      [message('1', ordered), message('retry a', { ...ordered, delayMs: 50 }), message('2', ordered)],
      signal,
    )
    await driver.send(
      queue,
      [message('retry b', { ...ordered, delayMs: 50 }), message('free', { delayMs: 50 })],
      signal,
    )
    await clock.advance(100)
    const order: string[] = []
    for (let round = 0; round < 5; round++) {
      const deliveries = await receiver.receive(10, 0, signal)
      order.push(ids(deliveries).join(' + '))
      await ack(receiver, ...deliveries)
    }
    expect(order).toEqual(['1 + free', '2', 'retry a', 'retry b', ''])
    expect(await driver.stats(queue, signal)).toEqual({ ready: 0, delayed: 0, inFlight: 0, dead: 0 })
  })

  it('go on after those that only waited are all that is due', async () => {
    const clock = new ManualClock()
    const driver = await connect(tempFile(), clock)
    const receiver = await open(driver, 10_000, 3)
    const held = { partitionKey: 'held', ordered: true }
    await driver.send(queue, [message('1', held)], signal)
    const [one] = await receiver.receive(1, 0, signal)
    const late = Array.from({ length: 10 }, (_, i) => message(`late ${i}`, { ...held, delayMs: 5 }))
    await driver.send(queue, [...late, message('free', { delayMs: 6 })], signal)
    await clock.advance(10)
    expect(ids(await receiver.receive(2, 0, signal))).toEqual(['free'])
    // Those behind count as ready: they could run but for the one in flight.
    expect(await driver.stats(queue, signal)).toMatchObject({ ready: 10, inFlight: 2, oldestReadyAgeMs: 5 })
    await ack(receiver, one)
    expect(ids(await receiver.receive(2, 0, signal))).toEqual(['late 0'])
  })
})

describe('the wall clock', () => {
  /** A clock whose wall time can be set, as an administrator or NTP does; its monotonic time goes on. */
  function stepped(): Clock & { stepMs: number } {
    return {
      stepMs: 0,
      now() {
        return systemClock.now() + this.stepMs
      },
      monotonicMs: systemClock.monotonicMs,
      schedule: systemClock.schedule,
    }
  }

  it('stepping forward delivers early, and the first holder settles nothing of the second', async () => {
    const clock = stepped()
    const driver = await connect(tempFile(), clock)
    const [a, b] = [await open(driver), await open(driver)]
    await driver.send(queue, [message('a')], signal)
    const [first] = await a.receive(1, 0, signal)
    clock.stepMs = 3_600_000
    const [second] = await b.receive(1, 0, signal)
    expect(ids([second!])).toEqual(['a'])
    expect(await ack(a, first)).toEqual(['lost'])
    expect(await ack(b, second)).toEqual(['settled'])
  })

  it('stepping back changes nothing for those who are there: ready is ready, delays and leases keep their length', async () => {
    const clock = new ManualClock()
    const path = tempFile()
    const wall = { stepMs: 0 }
    const stepping: Clock = {
      now: () => clock.now() + wall.stepMs,
      monotonicMs: () => clock.monotonicMs(),
      schedule: (callback, delayMs) => clock.schedule(callback, delayMs),
    }
    const [driver, other] = [await connect(path, stepping), await connect(path, stepping)]
    const [a, b] = [await open(driver, 30_000), await open(other, 30_000)]
    await driver.send(queue, [message('held')], signal)
    const held = await a.receive(1, 0, signal)
    await driver.send(queue, [message('ready'), message('delayed', { delayMs: 10_000 })], signal)
    wall.stepMs = -3_600_000
    await other.send(queue, [message('after'), message('delayed after', { delayMs: 10_000 })], signal)
    expect(await driver.stats(queue, signal)).toMatchObject({ ready: 2, delayed: 2, inFlight: 1, nextDueInMs: 10_000 })
    const ready = await b.receive(10, 0, signal)
    expect(ids(ready)).toEqual(['ready', 'after'])
    await ack(b, ...ready)
    await clock.advance(9_999)
    expect(await b.receive(10, 0, signal)).toEqual([])
    await clock.advance(1)
    const delayed = await b.receive(10, 0, signal)
    expect(ids(delayed)).toEqual(['delayed', 'delayed after'])
    expect(await ack(b, ...delayed)).toEqual(['settled', 'settled'])
    await clock.advance(20_000)
    expect(ids(await b.receive(10, 0, signal))).toEqual(['held'])
    expect(await ack(a, ...held)).toEqual(['lost'])
  })

  it('stepping back while nobody is there: the next process goes on from the time kept in the file', async () => {
    const path = tempFile()
    const clock = new ManualClock()
    const before = await connect(path, clock)
    await before.send(queue, [message('ready')], signal)
    await clock.advance(5_000)
    await before.send(queue, [message('later'), message('delayed', { delayMs: 10_000 })], signal)
    await before.close()
    const late = new ManualClock(clock.now() - 3_600_000)
    const after = await connect(path, late)
    const receiver = await open(after)
    const ready = await receiver.receive(10, 0, signal)
    expect(ids(ready)).toEqual(['ready', 'later'])
    await ack(receiver, ...ready)
    await late.advance(10_000)
    expect(ids(await receiver.receive(10, 0, signal))).toEqual(['delayed'])
  })

  it('stepping back while a worker is idle: a producer that starts then learns the time, and delays nothing too little', async () => {
    const path = tempFile()
    const wall = { stepMs: 0 }
    const clock = new ManualClock()
    const stepping: Clock = {
      now: () => clock.now() + wall.stepMs,
      monotonicMs: () => clock.monotonicMs(),
      schedule: (callback, delayMs) => clock.schedule(callback, delayMs),
    }
    const receiver = await open(await connect(path, stepping))
    await clock.advance(3_600_000)
    expect(await receiver.receive(1, 0, signal)).toEqual([])
    wall.stepMs = -3_600_000
    // The worker looks, and leaves word of the time.
    const looking = receiver.receive(1, 1_000, signal)
    const file = new DatabaseSync(path)
    const kept = () =>
      (file.prepare(`SELECT value FROM idemq_meta WHERE name = 'time'`).get() as { value: number }).value
    await clock.advance(1_000)
    expect(await looking).toEqual([])
    await vi.waitFor(() => expect(kept()).toBeGreaterThanOrEqual(clock.now() - 1_000))
    file.close()
    const producer = await connect(path, new ManualClock(clock.now() - 3_600_000))
    await producer.send(queue, [message('delayed', { delayMs: 10_000 })], signal)
    await clock.advance(8_000)
    expect(await receiver.receive(1, 0, signal)).toEqual([])
    await clock.advance(2_000)
    expect(ids(await receiver.receive(1, 0, signal))).toEqual(['delayed'])
  })
})

describe('receiving', () => {
  it('from an idle queue takes no write lock', async () => {
    const path = tempFile()
    const receiver = await open(await connect(path))
    const stranger = new DatabaseSync(path)
    stranger.exec('BEGIN IMMEDIATE')
    expect(await receiver.receive(10, 40, signal)).toEqual([])
    stranger.close()
  })

  it('strands nothing when it is aborted at any moment', async () => {
    const driver = await connect(tempFile())
    const receiver = await open(driver, 60_000, 1_000)
    await driver.send(
      queue,
      Array.from({ length: 200 }, (_, i) => message(`m${i}`)),
      signal,
    )
    let received = 0
    for (let turns = 0; received < 200; turns = (turns + 1) % 7) {
      const giveUp = new AbortController()
      const receiving = receiver.receive(3, 1_000, giveUp.signal)
      for (let turn = 0; turn < turns; turn++) await new Promise((resolve) => setImmediate(resolve))
      giveUp.abort()
      received += (await receiving).length
    }
    expect(await driver.stats(queue, signal)).toMatchObject({ ready: 0, inFlight: received })
  })

  it('at once from several sides never exceeds maxUnsettled', async () => {
    const driver = await connect(tempFile())
    const receiver = await open(driver, 60_000, 5)
    await driver.send(
      queue,
      Array.from({ length: 20 }, (_, i) => message(`m${i}`)),
      signal,
    )
    const received = await Promise.all([3, 3, 3].map((max) => receiver.receive(max, 0, signal)))
    expect(received.flat()).toHaveLength(5)
  })
})

describe('the file', () => {
  it('keeps everything over a restart', async () => {
    const path = tempFile()
    const first = await connect(path)
    await first.send(queue, [message('a'), message('b'), message('c', { delayMs: 60_000 })], signal)
    await first.sendDead(queue, [message('d')], signal)
    const receiver = await open(first)
    await ack(receiver, (await receiver.receive(1, 0, signal))[0])
    await first.close()
    const second = await connect(path)
    expect(await second.stats(queue, signal)).toMatchObject({ ready: 1, delayed: 1, inFlight: 0, dead: 1 })
    expect(ids(await (await open(second)).receive(10, 0, signal))).toEqual(['b'])
  })

  it('does not grow with what has gone through it', async () => {
    const path = tempFile()
    const driver = await connect(path)
    const receiver = await open(driver, 60_000, 1_000)
    const pages = (): number => {
      const connection = new DatabaseSync(path)
      const { page_count: count } = connection.prepare('PRAGMA page_count').get() as { page_count: number }
      connection.close()
      return count
    }
    const sizes: number[] = []
    for (let round = 0; round < 10; round++) {
      const batch = Array.from({ length: 500 }, (_, i) => message(`${round}.${i}`, { body: Buffer.alloc(1_000) }))
      await driver.send(queue, batch, signal)
      await ack(receiver, ...(await receiver.receive(500, 0, signal)))
      sizes.push(pages())
    }
    expect(sizes[9]).toBeLessThanOrEqual(sizes[1]! * 1.1)
    await driver.close()
    expect(statSync(path).size).toBeLessThan(3_000_000)
  })

  it('overwrites in place when a message is received, however large its body', async () => {
    const path = tempFile()
    const driver = await connect(path)
    await driver.send(queue, [message('large', { body: Buffer.alloc(8 * 1024 * 1024) })], signal)
    const reader = new DatabaseSync(path)
    reader.exec('PRAGMA wal_checkpoint(TRUNCATE)')
    reader.close()
    await (await open(driver)).receive(1, 0, signal)
    expect(statSync(`${path}-wal`).size).toBeLessThan(64 * 1024)
  })
})

it('asks for a queue to be declared', async () => {
  const driver = await connect(tempFile())
  const unknown = { name: 'unknown', group: 'default' }
  const missing = { code: 'QUEUE_MISSING', message: expect.stringContaining("'unknown'") }
  await expect(driver.send(unknown, [message('a')], signal)).rejects.toMatchObject(missing)
  await expect(driver.declare(unknown, 'check', signal)).rejects.toMatchObject(missing)
})
