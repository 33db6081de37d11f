import { memory } from '@idemq/memory'
import { describe, expect, it } from 'vitest'
import { altered, during } from '../../test/scene.ts'
import { ManualClock } from '../clock.ts'
import type { Driver, Outgoing, Sent } from '../driver.ts'
import { IdemqError } from '../errors.ts'
import { Sender } from './sender.ts'

type Answer = Sent | Error | ((signal: AbortSignal) => Promise<Sent>)

/** A sender whose driver gives these answers, one a call, then 'stored'. */
function newSender(...answers: Answer[]): {
  sender: Sender
  clock: ManualClock
  calls: Outgoing[][]
  targets: unknown[]
} {
  const clock = new ManualClock()
  const calls: Outgoing[][] = []
  const targets: unknown[] = []
  const answer = async (target: unknown, batch: readonly Outgoing[], signal: AbortSignal): Promise<Sent[]> => {
    calls.push([...batch])
    targets.push(target)
    const next = answers.shift() ?? { status: 'stored' }
    if (next instanceof Error) throw next
    const sent = typeof next === 'function' ? await next(signal) : next
    return batch.map(() => sent)
  }
  const { driver } = memory({ clock })
  return {
    sender: new Sender(altered<Driver>(driver, { send: answer, sendDead: answer }), clock),
    clock,
    calls,
    targets,
  }
}

const message = (copyId = 'a.0.1.0'): Outgoing => ({
  copyId,
  jobId: 'a',
  body: Buffer.from('{}'),
  partitionKey: 'a',
  ordered: false,
  delayMs: 0,
})
const queue = { name: 'q', group: 'default' }
const failed = (code: 'BROKER_BUSY' | 'BODY_TOO_LARGE'): Sent => ({
  status: 'failed',
  error: new IdemqError(code, code),
})

describe.each(['send', 'sendDead'] as const)('%s', (method) => {
  it('resolves once the broker confirmed it', async () => {
    const { sender, calls, targets } = newSender()
    await sender[method](queue, message(), 1_000)
    expect(calls).toHaveLength(1)
    expect(targets).toEqual([queue])
  })

  it('repeats what is unknown, under the same copyId', async () => {
    const { sender, clock, calls } = newSender({ status: 'unknown' }, { status: 'unknown' })
    await during(clock, sender[method](queue, message('same'), 60_000))
    expect(calls.map((batch) => batch.map(({ copyId }) => copyId))).toEqual([['same'], ['same'], ['same']])
  })

  it('gives up with SEND_UNKNOWN where one try may have stored it, whatever the last one said', async () => {
    const { sender, clock, calls } = newSender({ status: 'unknown' }, ...Array(99).fill(failed('BROKER_BUSY')))
    const error = await during(clock, sender[method](queue, message(), 5_000)).catch((thrown: unknown) => thrown)
    expect(error).toMatchObject({ code: 'SEND_UNKNOWN', cause: { code: 'BROKER_BUSY' } })
    expect(calls.length).toBeGreaterThan(2)
    expect(clock.monotonicMs()).toBeLessThanOrEqual(5_500)
  })

  it('repeats a failure that may pass, and passes it on when time is up: nothing was stored', async () => {
    const { sender, clock, calls } = newSender(...Array(99).fill(failed('BROKER_BUSY')))
    await expect(during(clock, sender[method](queue, message(), 5_000))).rejects.toMatchObject({ code: 'BROKER_BUSY' })
    expect(calls.length).toBeGreaterThan(2)
    const one = newSender(failed('BROKER_BUSY'))
    await during(one.clock, one.sender[method](queue, message(), 5_000))
    expect(one.calls).toHaveLength(2)
  })

  it('passes on at once what no repeat can mend', async () => {
    const { sender, clock, calls } = newSender(failed('BODY_TOO_LARGE'))
    await expect(sender[method](queue, message(), 60_000)).rejects.toMatchObject({ code: 'BODY_TOO_LARGE' })
    expect(calls).toHaveLength(1)
    expect(clock.monotonicMs()).toBe(0)
  })

  it('wraps a rejection that is no error of ours as one that may pass', async () => {
    const cause = new Error('ECONNRESET')
    const { sender, clock } = newSender(...Array(99).fill(cause))
    const error = await during(clock, sender[method](queue, message(), 2_000)).catch((thrown: unknown) => thrown)
    expect(error).toMatchObject({ code: 'BROKER_UNAVAILABLE', cause })
  })

  it('counts a call that was cut off as unknown', async () => {
    const hang = (signal: AbortSignal): Promise<Sent> =>
      new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
    const { sender, clock, calls } = newSender(hang)
    await during(clock, sender[method](queue, message(), 60_000))
    expect(calls).toHaveLength(2)
    const last = newSender(hang)
    await expect(during(last.clock, last.sender[method](queue, message(), 20_000))).rejects.toMatchObject({
      code: 'SEND_UNKNOWN',
    })
  })

  it('stops between tries when its signal aborts', async () => {
    const abort = new AbortController()
    const { sender, clock, calls } = newSender(...Array(99).fill(failed('BROKER_BUSY')))
    const sending = sender[method](queue, message(), Number.POSITIVE_INFINITY, abort.signal)
    sending.catch(() => {})
    await clock.advance(10_000)
    abort.abort()
    await expect(sending).rejects.toMatchObject({ code: 'BROKER_BUSY' })
    const { length } = calls
    await clock.advance(60_000)
    expect(calls).toHaveLength(length)
  })
})

it('keeps targets, groups and dead letters apart, each in batches of its own', async () => {
  const { sender, calls, targets } = newSender()
  await Promise.all([
    sender.send({ name: 'q' }, message('1'), 1_000),
    sender.send({ name: 'q' }, message('2'), 1_000),
    sender.send({ name: 'q', group: 'mail' }, message('3'), 1_000),
    sender.send({ name: 'r' }, message('4'), 1_000),
    sender.sendDead(queue, message('5'), 1_000),
  ])
  expect(calls.map((batch) => batch.map(({ copyId }) => copyId))).toEqual([['1', '2'], ['3'], ['4'], ['5']])
  expect(targets).toEqual([{ name: 'q' }, { name: 'q', group: 'mail' }, { name: 'r' }, queue])
})

it('a failure of one message in a batch is its own', async () => {
  const clock = new ManualClock()
  const { driver } = memory({ clock })
  const send = async (_: unknown, batch: readonly Outgoing[]): Promise<Sent[]> =>
    batch.map(({ copyId }) => (copyId === 'bad' ? failed('BODY_TOO_LARGE') : { status: 'stored' }))
  const sender = new Sender(altered<Driver>(driver, { send }), clock)
  const results = await Promise.allSettled(['a', 'bad', 'b'].map((id) => sender.send(queue, message(id), 1_000)))
  expect(results.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled'])
})

describe('sendMany', () => {
  it('answers each, and repeats only those that are not stored', async () => {
    const { clock, calls } = newSender()
    const [stored, busy, large] = [message('a.0.1.0'), message('b.0.1.0'), message('c.0.1.0')]
    let sends = 0
    const driver = altered<Driver>(memory({ clock }).driver, {
      send: async (_target: unknown, batch: readonly Outgoing[]) => {
        calls.push([...batch])
        const isFirst = sends++ === 0
        return batch.map((each): Sent => {
          if (each === large) return failed('BODY_TOO_LARGE')
          return isFirst && each === busy ? failed('BROKER_BUSY') : { status: 'stored' }
        })
      },
    })
    const sending = new Sender(driver, clock).sendMany(queue, [stored, busy, large], 10_000)
    const errors = await during(clock, sending)
    expect(errors.map((error) => error?.code)).toEqual([undefined, undefined, 'BODY_TOO_LARGE'])
    expect(calls).toEqual([[stored, busy, large], [busy]])
  })

  it('knows those that are stored when time is up for the others', async () => {
    const { clock } = newSender()
    const { driver } = memory({ clock })
    const half = altered<Driver>(driver, {
      capabilities: { ...driver.capabilities, maxBatch: 1 },
      send: (_target: unknown, [each]: readonly Outgoing[]): Promise<Sent[]> =>
        each?.copyId === 'a.0.1.0' ? Promise.resolve([{ status: 'stored' }]) : new Promise(() => {}),
    })
    const sending = new Sender(half, clock).sendMany(queue, [message('a.0.1.0'), message('b.0.1.0')], 1_000)
    expect((await during(clock, sending)).map((error) => error?.code)).toEqual([undefined, 'SEND_UNKNOWN'])
  })
})
