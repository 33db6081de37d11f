/** One consumer of a queue: takes leases, and settles or extends them under their tokens. */
import type { Delivery, OpenOptions, Outcome, Receiver, Settled } from '@idemq/core'
import type { Use } from './database.ts'
import { maxBatch, type Queue } from './driver.ts'
import { Frontier } from './frontier.ts'
import { ackOrdered, takeTurns } from './lanes.ts'
import { ack, extend, type Fence, fateOf, giveBack, type Held, lost, type Taken, take } from './messages.ts'
import type { Wakeups } from './wakeups.ts'

const settled: Settled = { status: 'settled' }
const nothing: Held = { places: new Map(), others: lost }
const never = new AbortController().signal
/** How long a receive that is aborted waits for the answer to the statement under way, so as to strand nothing. */
const abortGraceMs = 1_000
/** A lease that is over is found by a look at everything: well within the time of a lease, and once a second. */
const wholeLookEveryMs = (leaseMs: number): number => Math.min(1_000, Math.max(20, leaseMs / 20))

export function openReceiver(
  use: Use,
  wakeups: Wakeups,
  queue: Queue,
  options: OpenOptions,
  onClose: () => void,
): Receiver {
  const { clock, pollMs } = use.database().options
  const { maxUnsettled, leaseMs } = options
  const bell = wakeups.bell(queue.topic)
  const frontier = new Frontier(clock, wholeLookEveryMs(leaseMs))
  /** Leases are equally long and an extended delivery moves to the end, so the first expires first. */
  const held = new Set<Taken>()
  /** Room kept for receives under way. */
  let reserved = 0
  /** The last receive found no room: settling makes some. */
  let full = false
  let stopped = false
  let closed = false

  function room(): number {
    for (const first of held) {
      if (first.holdUntilMs > clock.monotonicMs()) break
      held.delete(first)
    }
    return maxUnsettled - held.size - reserved
  }

  async function takeSome(max: number, signal: AbortSignal): Promise<Delivery[]> {
    reserved += max
    const patience = new AbortController()
    let cancelGrace = (): void => {}
    const abort = (): void => {
      cancelGrace = clock.schedule(() => patience.abort(signal.reason), abortGraceMs)
    }
    signal.addEventListener('abort', abort)
    try {
      const holdUntilMs = clock.monotonicMs() + leaseMs
      const deliveries = await lease(max, holdUntilMs, patience.signal)
      for (const delivery of deliveries) held.add(delivery)
      if (!closed) return deliveries
    } catch (error) {
      if (signal.aborted) return []
      throw error
    } finally {
      reserved -= max
      signal.removeEventListener('abort', abort)
      cancelGrace()
    }
    await giveAllBack()
    return []
  }

  /** Until there is something to deliver, or nothing: all that was leased may have gone behind its ordering keys. */
  async function lease(max: number, holdUntilMs: number, signal: AbortSignal): Promise<Taken[]> {
    for (;;) {
      const database = use.database()
      const taken = await frontier.look((from) => take(database, queue.id, max, leaseMs, holdUntilMs, from, signal))
      const waiting = taken.filter(({ turn }) => !turn)
      if (waiting.length === 0) return taken
      const called = await takeTurns(database, queue.id, waiting, signal).catch(async (error) => {
        await giveBack(database, queue.id, taken, true, signal)
        throw error
      })
      const deliverable = taken.filter(({ turn, copyId }) => turn || called.has(copyId))
      if (deliverable.length > 0) return deliverable
    }
  }

  async function giveAllBack(): Promise<void> {
    const unsettled = [...held]
    held.clear()
    if (unsettled.length === 0) return
    for (let at = 0; at < unsettled.length; at += maxBatch) {
      await giveBack(use.database(), queue.id, unsettled.slice(at, at + maxBatch), false, never)
    }
    wakeups.announced(queue.topic, false)
  }

  async function answered(fences: readonly Fence[], work: () => Promise<Held>): Promise<Held> {
    try {
      return fences.length > 0 ? await work() : nothing
    } catch (error) {
      return { places: new Map(), others: fateOf(error) }
    }
  }

  return {
    async receive(max, waitMs, signal) {
      const untilMs = clock.monotonicMs() + waitMs
      for (;;) {
        if (stopped || signal.aborted) return []
        const seen = bell.armed()
        const wanted = Math.min(max, maxBatch, room())
        full = wanted <= 0
        if (!full) {
          const deliveries = await takeSome(wanted, signal)
          if (deliveries.length > 0 || stopped) return deliveries
        }
        const leftMs = untilMs - clock.monotonicMs()
        if (leftMs <= 0) return []
        wakeups.ensureListening()
        await bell.wait(Math.min(leftMs, pollMs), seen, signal)
      }
    },

    async settle(batch, signal) {
      const database = use.database()
      const plain: Taken[] = []
      const ordered: Taken[] = []
      const released: Taken[] = []
      const kindOf = (delivery: Taken, outcome: Outcome): Taken[] =>
        outcome === 'release' ? released : delivery.orderingKey === null ? plain : ordered
      for (const { delivery, outcome } of batch) {
        const one = delivery as Taken
        kindOf(one, outcome).push(one)
      }
      const answers = new Map([
        [plain, await answered(plain, () => ack(database, queue.id, plain, signal))],
        [ordered, await answered(ordered, () => ackOrdered(database, queue.id, ordered, signal))],
        [released, await answered(released, () => giveBack(database, queue.id, released, true, signal))],
      ])
      const results = batch.map(({ delivery, outcome }) => {
        const one = delivery as Taken
        const { places, others } = answers.get(kindOf(one, outcome))!
        // The same delivery twice in a batch is settled once.
        const result = places.delete(one.token) ? settled : others
        if (result.status !== 'failed') held.delete(one)
        return result
      })
      // Work for others: a released copy, or the next of an ordering key.
      if (ordered.length + released.length > 0) wakeups.announced(queue.topic, false)
      else if (full) bell.ring()
      return results
    },

    async extend(deliveries, signal) {
      const holdUntilMs = clock.monotonicMs() + leaseMs
      const fences = deliveries as readonly Taken[]
      const database = use.database()
      const { places, others } = await answered(fences, () => extend(database, queue.id, fences, leaseMs, signal))
      return fences.map((delivery) => {
        const place = places.get(delivery.token)
        if (place === undefined && others.status !== 'lost') return others
        held.delete(delivery)
        if (place === undefined) return lost
        delivery.holdUntilMs = holdUntilMs
        delivery.place = place
        held.add(delivery)
        return settled
      })
    },

    async stop() {
      stopped = true
      bell.ring()
    },

    async close() {
      if (closed) return
      stopped = true
      closed = true
      bell.ring()
      onClose()
      await giveAllBack()
    },
  }
}
