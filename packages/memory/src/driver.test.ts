import { type Delivery, ManualClock, type Outgoing, type Receiver } from '@idemq/core'
import { beforeEach, describe, expect, it } from 'vitest'
import { memoryBroker, memoryDriver } from './driver.ts'

const { signal } = new AbortController()
const queue = { name: 'orders', group: 'default' }
let clock: ManualClock
let driver: ReturnType<typeof memoryDriver>

beforeEach(async () => {
  clock = new ManualClock()
  driver = memoryDriver(memoryBroker(clock), 64 * 1024)
  await driver.declare(queue, 'create', signal)
})

function message(id: string, extra: Partial<Outgoing> = {}): Outgoing {
  return { copyId: id, jobId: id, body: Buffer.from(id), partitionKey: id, ordered: false, delayMs: 0, ...extra }
}

function open(maxUnsettled = 100, leaseMs = 1_000, ref = queue): Promise<Receiver> {
  return driver.open(ref, { maxUnsettled, leaseMs, onLost: () => {} }, signal)
}

function ids(deliveries: readonly Delivery[]): string[] {
  return deliveries.map((delivery) => Buffer.from(delivery.body).toString())
}

describe('waiting', () => {
  it('wakes at the very instant a delayed message is due', async () => {
    await driver.send(queue, [message('late', { delayMs: 700 }), message('later', { delayMs: 900 })], signal)
    const receiver = await open()
    const received = receiver.receive(10, 5_000, signal).then((got) => ({ at: clock.monotonicMs(), got: ids(got) }))
    await clock.advance(10_000)
    expect(await received).toEqual({ at: 700, got: ['late'] })
  })

  it('wakes when a lease ends that began while it waited', async () => {
    const [crashing, waiting] = [await open(100, 400), await open()]
    const inHand = crashing.receive(1, 5_000, signal)
    const received = waiting.receive(1, 5_000, signal).then((got) => ({ at: clock.monotonicMs(), got: ids(got) }))
    await clock.advance(100)
    await driver.send(queue, [message('a')], signal)
    expect(ids(await inHand)).toEqual(['a'])
    await clock.advance(10_000)
    expect(await received).toEqual({ at: 500, got: ['a'] })
  })

  it('resolves empty after waitMs, and at once when aborted or stopped', async () => {
    const receiver = await open()
    const idle = receiver.receive(1, 300, signal).then((got) => ({ at: clock.monotonicMs(), got }))
    await clock.advance(1_000)
    expect(await idle).toEqual({ at: 300, got: [] })
    const giveUp = new AbortController()
    const aborted = receiver.receive(1, 60_000, giveUp.signal)
    giveUp.abort()
    expect(await aborted).toEqual([])
    const stopped = receiver.receive(1, 60_000, signal)
    await receiver.stop()
    expect(await stopped).toEqual([])
  })

  it('hands out no more than maxUnsettled, and goes on when one is settled', async () => {
    await driver.send(
      queue,
      ['a', 'b', 'c'].map((id) => message(id)),
      signal,
    )
    const receiver = await open(2)
    const [first] = await receiver.receive(10, 0, signal)
    expect(await receiver.receive(10, 0, signal)).toEqual([])
    const next = receiver.receive(10, 500, signal)
    await receiver.settle([{ delivery: first!, outcome: 'ack' }], signal)
    expect(ids(await next)).toEqual(['c'])
  })
})

describe('leases', () => {
  it('fences by delivery: after the lease ended and another took it, settle and extend are lost', async () => {
    await driver.send(queue, [message('a')], signal)
    const [slow, quick] = [await open(), await open()]
    const [stale] = await slow.receive(1, 0, signal)
    await clock.advance(1_000)
    const [fresh] = await quick.receive(1, 0, signal)
    expect(fresh!.priorDeliveries).toBe(1)
    expect(await slow.settle([{ delivery: stale!, outcome: 'ack' }], signal)).toEqual([{ status: 'lost' }])
    expect(await slow.extend([stale!], signal)).toEqual([{ status: 'lost' }])
    expect(await quick.settle([{ delivery: fresh!, outcome: 'ack' }], signal)).toEqual([{ status: 'settled' }])
    expect(await quick.settle([{ delivery: fresh!, outcome: 'ack' }], signal)).toEqual([{ status: 'lost' }])
  })

  it('extend moves holdUntilMs and keeps the message', async () => {
    await driver.send(queue, [message('a'), message('b')], signal)
    const [receiver, other] = [await open(), await open()]
    const [a] = await receiver.receive(2, 0, signal)
    await clock.advance(600)
    expect(await receiver.extend([a!], signal)).toEqual([{ status: 'settled' }])
    expect(a!.holdUntilMs).toBe(1_600)
    await clock.advance(500)
    expect(ids(await other.receive(10, 0, signal))).toEqual(['b'])
  })

  it('release gives the count back and keeps the order; close gives everything back', async () => {
    await driver.send(
      queue,
      ['a', 'b', 'c'].map((id) => message(id)),
      signal,
    )
    const receiver = await open()
    const taken = await receiver.receive(2, 0, signal)
    await receiver.settle(
      taken.map((delivery) => ({ delivery, outcome: 'release' })),
      signal,
    )
    const again = await receiver.receive(3, 0, signal)
    expect(again.map((delivery) => delivery.priorDeliveries)).toEqual([0, 0, 0])
    expect(ids(again)).toEqual(['a', 'b', 'c'])
    await receiver.close()
    expect(await receiver.settle([{ delivery: again[0]!, outcome: 'ack' }], signal)).toEqual([{ status: 'lost' }])
    const after = await (await open()).receive(3, 0, signal)
    expect(ids(after)).toEqual(['a', 'b', 'c'])
    expect(after.map((delivery) => delivery.priorDeliveries)).toEqual([1, 1, 1])
  })
})

describe('order', () => {
  it('delivers one of a key at a time, in order, and a delayed copy blocks nobody', async () => {
    const ordered = { partitionKey: 'k', ordered: true }
    await driver.send(
      queue,
      [message('1', ordered), message('retry', { ...ordered, delayMs: 50 }), message('2', ordered), message('free')],
      signal,
    )
    const receiver = await open()
    const [one, free] = await receiver.receive(10, 0, signal)
    expect(ids([one!, free!])).toEqual(['1', 'free'])
    expect(await receiver.receive(10, 0, signal)).toEqual([])
    await receiver.settle([{ delivery: one!, outcome: 'release' }], signal)
    const again = await receiver.receive(10, 0, signal)
    expect(ids(again)).toEqual(['1'])
    await clock.advance(50)
    await receiver.settle([{ delivery: again[0]!, outcome: 'ack' }], signal)
    const two = await receiver.receive(10, 0, signal)
    expect(ids(two)).toEqual(['2'])
    await receiver.settle([{ delivery: two[0]!, outcome: 'ack' }], signal)
    expect(ids(await receiver.receive(10, 0, signal))).toEqual(['retry'])
  })
})

describe('groups', () => {
  it('give each group its own copy, the backlog to the first, and a targeted send to its group alone', async () => {
    await driver.send({ name: 'facts' }, [message('before')], signal)
    const [mail, audit] = [
      { name: 'facts', group: 'mail' },
      { name: 'facts', group: 'audit' },
    ]
    await driver.declare(mail, 'create', signal)
    await driver.declare(audit, 'create', signal)
    await driver.send({ name: 'facts' }, [message('after')], signal)
    await driver.send(audit, [message('audit-only')], signal)
    expect(ids(await (await open(100, 1_000, mail)).receive(10, 0, signal))).toEqual(['before', 'after'])
    expect(ids(await (await open(100, 1_000, audit)).receive(10, 0, signal))).toEqual(['after', 'audit-only'])
  })

  it('check never creates', async () => {
    const missing = { name: 'orders', group: 'nobody' }
    await expect(driver.declare(missing, 'check', signal)).rejects.toMatchObject({ code: 'QUEUE_MISSING' })
  })
})

describe('send', () => {
  it('ignores a copy that is still stored, delayed or in flight, and refuses one too large alone', async () => {
    const large = message('large', { body: Buffer.alloc(64 * 1024 + 1) })
    const answers = await driver.send(queue, [message('a'), large, message('a'), message('b', { delayMs: 5 })], signal)
    expect(answers.map(({ status }) => status)).toEqual(['stored', 'failed', 'stored', 'stored'])
    expect(answers[1]).toMatchObject({ error: { code: 'BODY_TOO_LARGE' } })
    const receiver = await open()
    await receiver.receive(1, 0, signal)
    await driver.send(queue, [message('a'), message('b')], signal)
    expect(await driver.stats(queue, signal)).toEqual({
      ready: 0,
      delayed: 1,
      inFlight: 1,
      dead: 0,
      oldestInFlightAgeMs: 0,
      nextDueInMs: 5,
    })
  })

  it('keeps 200,000 delayed messages sorted by due time', async () => {
    const delays = Array.from({ length: 200_000 }, (_, i) => 1 + ((i * 7_919) % 200_000))
    for (let at = 0; at < delays.length; at += 1_000) {
      await driver.send(
        queue,
        delays.slice(at, at + 1_000).map((delayMs) => message(`d${delayMs}`, { delayMs })),
        signal,
      )
    }
    await clock.advance(200_000)
    const receiver = await open(200_000)
    const got = ids(await receiver.receive(200_000, 0, signal))
    expect(got).toEqual(Array.from({ length: 200_000 }, (_, i) => `d${i + 1}`))
  })
})

describe('dead letters', () => {
  it('are kept once by copy id, shown oldest first, and removed only on request', async () => {
    await driver.sendDead(queue, [message('x'), message('y'), message('x'), message('z')], signal)
    const seen: string[] = []
    const scan = await driver.scanDead(
      queue,
      async ({ id }) => {
        seen.push(id)
        await driver.sendDead(queue, [message(`again-${id}`)], signal)
        return id === 'y' ? 'remove' : 'keep'
      },
      signal,
    )
    expect({ scan, seen }).toEqual({ scan: { complete: true }, seen: ['x', 'y', 'z'] })
    expect((await driver.stats(queue, signal)).dead).toBe(5)
    const stopped = await driver.scanDead(queue, async () => 'stop', signal)
    expect(stopped).toEqual({ complete: false })
  })
})

it('refuses every call once closed', async () => {
  await driver.close()
  await expect(driver.send(queue, [message('a')], signal)).rejects.toMatchObject({ code: 'CLOSED' })
  await expect(open()).rejects.toMatchObject({ code: 'CLOSED' })
})
