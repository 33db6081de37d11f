/**
 * One receiver: a consumer of its own in the group. What is new comes by a blocking read on a connection of its own,
 * which takes it in one round trip; every `pollMs`, and when something falls due, a look on the shared connection
 * promotes, reclaims, and takes what was given back. Both fill one buffer, so that a `receive` that ends early (abort,
 * its time) strands nothing: the next one finds it there.
 */
import {
  type Clock,
  type Delivery,
  Doorbell,
  type OpenOptions,
  type QueueRef,
  type Receiver,
  type Settled,
} from '@idemq/core'
import { type Argument, type Connection, never, type Script } from './connection.ts'
import { extendArguments, type Fence, settleArguments } from './fence.ts'
import { queueKey, streamKey } from './keys.ts'
import { extendScript, joinScript, leaveScript, lookScript, settleScript } from './receiver-scripts.ts'
import { isGroupGone } from './redis-error.ts'
import type { Session } from './session.ts'

export interface ReceiverOptions extends OpenOptions {
  readonly clock: Clock
  readonly pollMs: number
  readonly prefix: string
  readonly consumer: string
  readonly maxBatch: number
  /** Makes the group again after the server lost it. */
  readonly restore: (signal: AbortSignal) => Promise<void>
  readonly onClose: () => void
}

type HeldDelivery = Fence & { readonly body: Buffer; holdUntilMs: number }

/** Fields are as a rule one: its copyId, and the body. */
type Entry = readonly [id: Buffer, fields: readonly Buffer[], priorDeliveries?: number]
type StreamReply = readonly [readonly [stream: Buffer, entries: readonly Entry[]]]

const settled: Settled = { status: 'settled' }
const lost: Settled = { status: 'lost' }
/** Long enough for nobody to notice a turn, short enough to follow a server that answers no more. */
const longestBlockMs = 5_000
/** Where a block cannot be ended early, stopping waits for it. */
const clusterBlockMs = 1_000
const foreverMs = 2 ** 31 - 1

/** `undefined` where the group is missing. */
export async function openReceiver(
  session: Session,
  queue: QueueRef,
  options: ReceiverOptions,
  signal: AbortSignal,
): Promise<Receiver | undefined> {
  const { clock, leaseMs, maxUnsettled, consumer, pollMs, maxBatch } = options
  const { connection } = session
  const reader: Connection = session.another()
  const base = queueKey(options.prefix, queue.name)
  const stream = streamKey(base, queue.group)
  const where = `'${queue.name}', group '${queue.group}'`
  const bell = new Doorbell(clock)
  const blockMs = Math.min(
    reader.isCluster ? clusterBlockMs : longestBlockMs,
    session.options.answerTimeoutMs / 2,
    leaseMs / 4,
  )
  /** Handed out and unsettled. Leases are equally long and an extended one moves to the end: the first lapses first. */
  const held = new Set<HeldDelivery>()
  let buffer: HeldDelivery[] = []
  let looking: Promise<void> | undefined
  let reading: Promise<void> | undefined
  /** When to look next; 0 = at once. */
  let lookAtMs = 0
  let trouble: unknown
  let stopped = false
  let closing: Promise<void> | undefined
  /** The server's name for the reader's connection, and which connection that was. */
  let readerId: { readonly id: Promise<unknown>; readonly generation: number } | undefined

  const run = (what: string, signal: AbortSignal, script: Script, args: readonly Argument[]): Promise<unknown> =>
    session.run(`${what} ${where}`, signal, script, [base], [queue.group, ...args])

  function room(): number {
    const nowMs = clock.monotonicMs()
    for (const first of held) {
      if (first.holdUntilMs > nowMs) break
      held.delete(first)
    }
    if (buffer.some(({ holdUntilMs }) => holdUntilMs <= nowMs)) {
      buffer = buffer.filter(({ holdUntilMs }) => holdUntilMs > nowMs)
    }
    return maxUnsettled - held.size - buffer.length
  }

  function handOut(max: number): Delivery[] {
    const out = buffer.splice(0, max)
    for (const delivery of out) held.add(delivery)
    return out
  }

  /** Buffers what there is room for, and gives the rest back: a look and a read may have met. */
  async function keep(entries: readonly Entry[], sinceMs: number): Promise<void> {
    const deliveries = entries.map((entry) => deliveryOf(entry, sinceMs + leaseMs))
    const free = stopped ? 0 : Math.max(0, room())
    const kept = deliveries.length <= free ? deliveries : deliveries.slice(0, free)
    buffer = buffer.length === 0 ? kept : [...buffer, ...kept]
    if (kept.length > 0) bell.ring()
    await giveBack(deliveries.slice(free))
  }

  /** Deliveries nobody saw: they do not count. */
  async function giveBack(deliveries: readonly HeldDelivery[]): Promise<void> {
    if (deliveries.length === 0) return
    const all = deliveries.map((_, i) => i + 1)
    await run('give back to', never, settleScript, settleArguments(consumer, deliveries, all))
  }

  async function look(max: number, newToo: boolean): Promise<void> {
    const sinceMs = clock.monotonicMs()
    const args = [consumer, max, leaseMs, newToo ? 1 : 0]
    const [againMs, ...entries] = (await run('receive from', never, lookScript, args)) as [number, ...Entry[]]
    lookAtMs = clock.monotonicMs() + Math.min(againMs, pollMs)
    await keep(entries, sinceMs)
  }

  async function read(max: number, waitMs: number): Promise<void> {
    const sinceMs = clock.monotonicMs()
    if (!reader.isCluster && readerId?.generation !== reader.generation) {
      const id = reader.call('name a connection', never, 'client', ['id'])
      id.catch(() => {})
      readerId = { id, generation: reader.generation }
    }
    const ms = Math.max(1, Math.ceil(Math.min(waitMs, blockMs)))
    const args = ['group', 'idemq', consumer, 'count', max, 'block', ms, 'streams', stream, '>']
    const reply = (await reader.call(`receive from ${where}`, never, 'xreadgroup', args)) as StreamReply | null
    await keep(reply?.[0][1] ?? [], sinceMs)
  }

  /** Runs in the background: what it finds is in the buffer, or its error is thrown by the next `receive`. */
  async function inBackground(work: Promise<void>): Promise<void> {
    try {
      await work
    } catch (error) {
      if (!isGroupGone(error)) trouble = error
      else if (!stopped) await restore()
    }
  }

  async function restore(): Promise<void> {
    try {
      await options.restore(never)
      await join(never)
      lookAtMs = 0
    } catch (error) {
      trouble = error
    }
  }

  function join(signal: AbortSignal): Promise<unknown> {
    return run('open', signal, joinScript, [Math.ceil(leaseMs)])
  }

  /** Ends the read under way and waits for its answer, so that nothing is delivered to it afterwards. */
  async function endRead(): Promise<void> {
    while (reading) {
      const under = reading
      if (reader.isCluster) return under
      try {
        const id = Number(await readerId?.id)
        const ended = await connection.call('end a blocking read', never, 'client', ['unblock', id])
        // Not blocked: its answer is on its way, or it has not begun yet and is asked again.
        if (ended === 1) return under
      } catch {
        // Not allowed to, or the server is out of reach: the read ends by its time.
        return under
      }
    }
  }

  function begin(work: Promise<void>, ended: () => void): Promise<void> {
    return inBackground(work).finally(() => {
      ended()
      bell.ring()
    })
  }

  async function stop(): Promise<void> {
    stopped = true
    bell.ring()
    await endRead()
    await looking
    // Out of reach, they come back when their lease ends.
    await giveBack(buffer.splice(0)).catch(() => {})
  }

  async function close(): Promise<void> {
    options.onClose()
    await stop()
    held.clear()
    await run('close', never, leaveScript, [consumer]).catch(() => {})
    await reader.close()
  }

  if ((await join(signal)) === 0) return undefined
  return {
    async receive(max, waitMs, signal) {
      const untilMs = clock.monotonicMs() + waitMs
      let looked = false
      for (;;) {
        const seen = bell.armed()
        if (signal.aborted && !stopped) void endRead()
        if (stopped || signal.aborted) return []
        if (trouble !== undefined) {
          const error = trouble
          trouble = undefined
          throw error
        }
        const wanted = Math.min(max, maxBatch, room())
        if (buffer.length > 0) return handOut(Math.min(max, maxBatch))
        const nowMs = clock.monotonicMs()
        const leftMs = untilMs - nowMs
        const isLast = leftMs <= 0
        if (wanted > 0 && !looking && (nowMs >= lookAtMs || (isLast && !looked))) {
          looked = isLast
          looking = begin(look(wanted, isLast), () => {
            looking = undefined
          })
        }
        if (isLast && !looking && !reading) return []
        if (wanted > 0 && !isLast && !reading) {
          reading = begin(read(wanted, leftMs), () => {
            reading = undefined
          })
        }
        const nextMs = looking || leftMs <= 0 ? foreverMs : Math.min(leftMs, wanted > 0 ? lookAtMs - nowMs : leftMs)
        await bell.wait(nextMs, seen, signal)
      }
    },

    async settle(batch, signal) {
      if (batch.length === 0) return []
      const settling = batch.map(({ delivery }) => delivery as HeldDelivery)
      const released = batch.flatMap(({ outcome }, i) => (outcome === 'release' ? [i + 1] : []))
      const gone = await run('settle in', signal, settleScript, settleArguments(consumer, settling, released))
      for (const delivery of settling) held.delete(delivery)
      if (released.length > 0) lookAtMs = 0
      bell.ring()
      const isGone = new Set(gone as number[])
      return settling.map((_, i) => (isGone.has(i + 1) ? lost : settled))
    },

    async extend(deliveries, signal) {
      if (deliveries.length === 0) return []
      const sinceMs = clock.monotonicMs()
      const extending = deliveries as readonly HeldDelivery[]
      const gone = await run('extend leases in', signal, extendScript, extendArguments(consumer, extending))
      const isGone = new Set(gone as number[])
      return extending.map((delivery, i) => {
        held.delete(delivery)
        if (isGone.has(i + 1)) return lost
        delivery.holdUntilMs = sinceMs + leaseMs
        held.add(delivery)
        return settled
      })
    },

    stop,

    close() {
      closing ??= close()
      return closing
    },
  }
}

function deliveryOf([id, fields, priorDeliveries = 0]: Entry, holdUntilMs: number): HeldDelivery {
  // Somebody else may have put more fields into it: nothing of them is dropped.
  const body = fields.length === 2 ? fields[1]! : Buffer.concat(fields)
  return { id, copyId: fields[0]!, body, priorDeliveries, holdUntilMs }
}
