import { memory } from '@idemq/memory'
import { describe, expect, it } from 'vitest'
import { altered, during } from '../../test/scene.ts'
import { ManualClock } from '../clock.ts'
import type { Capabilities, Delivery, Receiver, Settled } from '../driver.ts'
import { IdemqError } from '../errors.ts'
import { Holds } from './holds.ts'

const { signal } = new AbortController()
const leaseMs = 9_000
const queue = { name: 'q', group: 'default' }

/** Three deliveries held from a memory broker whose receiver may be changed. */
async function holding(
  change: (receiver: Receiver) => Partial<Receiver> = () => ({}),
  capabilities: Partial<Capabilities> = {},
): Promise<{
  clock: ManualClock
  holds: Holds
  deliveries: Delivery[]
  trouble: string[]
  room: () => number
  raw: Receiver
}> {
  const clock = new ManualClock()
  const { driver } = memory({ clock })
  await driver.declare(queue, 'create', signal)
  const batch = ['a', 'b', 'c'].map((id) => ({ copyId: id, jobId: id, partitionKey: id, ordered: false, delayMs: 0 }))
  await driver.send(
    queue,
    batch.map((message) => ({ ...message, body: Buffer.from('{}') })),
    signal,
  )
  const raw = await driver.open(queue, { maxUnsettled: 10, leaseMs, onLost: () => {} }, signal)
  const deliveries = await raw.receive(10, 0, signal)
  const trouble: string[] = []
  let rooms = 0
  const holds = new Holds({
    receiver: altered(raw, change(raw)),
    capabilities: { ...driver.capabilities, ...capabilities },
    clock,
    leaseMs,
    onTrouble: (operation, { code }) => trouble.push(`${operation}: ${code}`),
    onRoom: () => rooms++,
  })
  for (const delivery of deliveries) holds.add(delivery, () => {})
  return { clock, holds, deliveries, trouble, room: () => rooms, raw }
}

const failed = (code: 'BROKER_BUSY' | 'UNAUTHORIZED'): Settled => ({
  status: 'failed',
  error: new IdemqError(code, code),
})

describe('settle', () => {
  it('settles and makes room, in one call for what came in one turn', async () => {
    const sizes: number[] = []
    const { holds, deliveries, room } = await holding((receiver) => ({
      settle: (batch, s) => {
        sizes.push(batch.length)
        return receiver.settle(batch, s)
      },
    }))
    expect(await Promise.all(deliveries.map((delivery) => holds.settle(delivery, 'ack', signal)))).toEqual([
      true,
      true,
      true,
    ])
    expect([sizes, holds.size, room()]).toEqual([[3], 0, 3])
    expect(await holds.settle(deliveries[0]!, 'ack', signal)).toBe(false)
  })

  it.each<[string, () => Promise<Settled[]>, string]>([
    ['answers failed', async () => [failed('BROKER_BUSY')], 'settle: BROKER_BUSY'],
    ['rejects with whatever', () => Promise.reject(new Error('ECONNRESET')), 'settle: BROKER_UNAVAILABLE'],
  ])('repeats where the broker %s, while it is held', async (_, answer, said) => {
    let calls = 0
    const { clock, holds, deliveries, trouble } = await holding((receiver) => ({
      settle: (batch, s) => (++calls <= 3 ? answer() : receiver.settle(batch, s)),
    }))
    expect(await during(clock, holds.settle(deliveries[0]!, 'ack', signal))).toBe(true)
    expect(calls).toBe(4)
    expect(trouble).toEqual([said, said, said])
  })

  it('gives up, and says so, on what no repeat can mend or once the hold is over', async () => {
    const hopeless = await holding(() => ({ settle: async () => [failed('UNAUTHORIZED')] }))
    expect(await hopeless.holds.settle(hopeless.deliveries[0]!, 'ack', signal)).toBe(false)
    expect([hopeless.trouble, hopeless.holds.size]).toEqual([['settle: UNAUTHORIZED'], 2])
    const busy = await holding(() => ({ settle: async () => [failed('BROKER_BUSY')] }), { canExtend: false })
    expect(await during(busy.clock, busy.holds.settle(busy.deliveries[0]!, 'ack', signal))).toBe(false)
    expect(busy.clock.monotonicMs()).toBeGreaterThanOrEqual(leaseMs - 2_000)
    expect(busy.holds.size).toBe(2)
  })

  it('stops repeating when the worker gives up', async () => {
    const abort = new AbortController()
    const { clock, holds, deliveries } = await holding(() => ({ settle: async () => [failed('BROKER_BUSY')] }))
    const settling = holds.settle(deliveries[0]!, 'ack', abort.signal)
    await clock.advance(1_000)
    abort.abort()
    expect(await settling).toBe(false)
  })

  it('takes unknown and lost for an end: the delivery is nobody’s here any more', async () => {
    for (const status of ['unknown', 'lost'] as const) {
      const { holds, deliveries } = await holding(() => ({ settle: async () => [{ status }] }))
      expect(await holds.settle(deliveries[0]!, 'ack', signal)).toBe(false)
      expect(holds.size).toBe(2)
    }
  })
})

describe('renewal', () => {
  it('keeps what is held for as long as it is held, and nothing else', async () => {
    const { clock, holds, deliveries, raw } = await holding()
    await holds.settle(deliveries[2]!, 'ack', signal)
    await clock.advance(10 * leaseMs)
    expect(deliveries.map((delivery) => holds.isHeld(delivery))).toEqual([true, true, false])
    holds.drop(deliveries[0]!)
    await clock.advance(2 * leaseMs)
    expect(await raw.receive(10, 0, signal)).toHaveLength(1)
    holds.stop()
    await clock.advance(2 * leaseMs)
    expect(holds.isHeld(deliveries[1]!)).toBe(false)
  })

  it('goes on for what is added after everything had gone', async () => {
    const { clock, holds, deliveries } = await holding()
    for (const delivery of deliveries) holds.drop(delivery)
    await clock.advance(leaseMs / 2)
    holds.add(deliveries[0]!, () => {})
    await clock.advance(10 * leaseMs)
    expect(holds.isHeld(deliveries[0]!)).toBe(true)
  })

  it('tells at once who was lost, as the broker says', async () => {
    const { clock, holds, deliveries } = await holding((receiver) => ({
      extend: async (batch, s) => {
        const answers = await receiver.extend(batch, s)
        return answers.map((answer, i) => (batch[i] === deliveries0() ? { status: 'lost' } : answer))
      },
    }))
    const deliveries0 = (): Delivery => deliveries[0]!
    const lost: string[] = []
    holds.onLost(deliveries[0]!, () => lost.push('first'))
    holds.onLost(deliveries[1]!, () => lost.push('second'))
    await clock.advance(leaseMs)
    expect(lost).toEqual(['first'])
    expect(holds.size).toBe(2)
    holds.lost([deliveries[1]!, deliveries[1]!])
    expect(lost).toEqual(['first', 'second'])
    expect(holds.size).toBe(1)
  })

  it.each<[string, (s: AbortSignal) => Promise<Settled[]>]>([
    ['fails', () => Promise.reject(new Error('ECONNRESET'))],
    ['hangs', (s) => new Promise((_, reject) => s.addEventListener('abort', () => reject(s.reason)))],
  ])(
    'that %s counts what it holds as lost when the lease is over, not before and not much later',
    async (_, extend) => {
      const { clock, holds, deliveries, trouble } = await holding(() => ({ extend: (_batch, s) => extend(s) }))
      const lostAtMs: number[] = []
      for (const delivery of deliveries) holds.onLost(delivery, () => lostAtMs.push(clock.monotonicMs()))
      await clock.advance(leaseMs - 1)
      expect(lostAtMs).toEqual([])
      await clock.advance(leaseMs)
      expect(lostAtMs).toHaveLength(3)
      expect(Math.max(...lostAtMs)).toBeLessThanOrEqual(leaseMs + (2 * leaseMs) / 3)
      expect(trouble[0]).toMatch(/^extend leases: (BROKER_UNAVAILABLE|TIMEOUT)$/)
      expect(holds.size).toBe(0)
    },
  )
})

describe('confirm', () => {
  it('asks the broker, where it can be asked', async () => {
    const { clock, holds, deliveries, raw } = await holding()
    expect(await holds.confirm(deliveries[0]!, signal)).toBe(true)
    await raw.settle([{ delivery: deliveries[0]!, outcome: 'ack' }], signal)
    expect(await holds.confirm(deliveries[0]!, signal)).toBe(false)
    holds.stop()
    await clock.advance(2 * leaseMs)
    expect(await holds.confirm(deliveries[1]!, signal)).toBe(false)
  })
})
