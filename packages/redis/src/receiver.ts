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
  type Outcome,
  type QueueRef,
  type Receiver,
  type Settled,
} from '@idemq/core'
import type { Argument, Connection, Script } from './connection.ts'
import { idSpan } from './entry-id.ts'
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

interface HeldDelivery extends Delivery {
  readonly id: string
  readonly copyId: Buffer
  readonly priorDeliveries: number
  holdUntilMs: number
}

type Entry = readonly [id: Buffer, priorDeliveries: number, copyId: Buffer, body: Buffer]
type StreamReply = readonly [readonly [stream: Buffer, entries: readonly (readonly [id: Buffer, fields: Buffer[]])[]]]

const settled: Settled = { status: 'settled' }
const lost: Settled = { status: 'lost' }
const never = new AbortController().signal
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

  const run = (what: string, signal: AbortSignal, script: Script, ...args: Argument[]): Promise<unknown> =>
    session.run(`${what} ${where}`, signal, script, base, queue.group, ...args)

  function room(): number {
    const nowMs = clock.monotonicMs()
    for (const first of held) {
      if (first.holdUntilMs > nowMs) break
      held.delete(first)
    }
    buffer = buffer.filter(({ holdUntilMs }) => holdUntilMs > nowMs)
    return maxUnsettled - held.size - buffer.length
  }

  function handOut(max: number): Delivery[] {
    const out = buffer.splice(0, max)
    for (const delivery of out) held.add(delivery)
    return out
  }

  /** Buffers what there is room for, and gives the rest back: a look and a read may have met. */
  async function keep(entries: readonly Entry[], sinceMs: number): Promise<void> {
    const holdUntilMs = sinceMs + leaseMs
    const deliveries = entries.map(([id, priorDeliveries, copyId, body]) => {
      return { id: id.toString(), priorDeliveries, copyId, body, holdUntilMs }
    })
    const free = stopped ? 0 : Math.max(0, room())
    buffer.push(...deliveries.slice(0, free))
    if (deliveries.length > free) await giveBack(deliveries.slice(free))
  }

  /** Deliveries nobody saw: they do not count. */
  async function giveBack(deliveries: readonly HeldDelivery[]): Promise<void> {
    if (deliveries.length === 0) return
    const args = deliveries.flatMap((delivery) => fence(delivery, 'release'))
    await run('give back to', never, settleScript, consumer, ...idSpan(deliveries), ...args)
  }

  async function look(max: number): Promise<void> {
    const sinceMs = clock.monotonicMs()
    const [againMs, ...entries] = (await run('receive from', never, lookScript, consumer, max, leaseMs)) as [
      number,
      ...Entry[],
    ]
    lookAtMs = clock.monotonicMs() + Math.min(againMs, pollMs)
    await keep(entries, sinceMs)
  }

  async function read(max: number, waitMs: number): Promise<void> {
    const sinceMs = clock.monotonicMs()
    if (!reader.isCluster && readerId?.generation !== reader.generation) {
      const id = reader.call('name a connection', never, 'client', 'id')
      id.catch(() => {})
      readerId = { id, generation: reader.generation }
    }
    const ms = Math.max(1, Math.ceil(Math.min(waitMs, blockMs)))
    const args = ['group', 'idemq', consumer, 'count', max, 'block', ms, 'streams', stream, '>']
    const reply = (await reader.call(`receive from ${where}`, never, 'xreadgroup', ...args)) as StreamReply | null
    const entries = reply?.[0][1] ?? []
    await keep(
      entries.map(([id, fields]): Entry => [id, 0, field(fields, 'c'), field(fields, 'b')]),
      sinceMs,
    )
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
    return run('open', signal, joinScript, Math.ceil(leaseMs))
  }

  /** Ends the read under way and waits for its answer, so that nothing is delivered to it afterwards. */
  async function endRead(): Promise<void> {
    while (reading) {
      const under = reading
      if (reader.isCluster) return under
      try {
        const id = Number(await readerId?.id)
        const ended = await connection.call('end a blocking read', never, 'client', 'unblock', id)
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
    await run('close', never, leaveScript, consumer).catch(() => {})
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
        if (wanted > 0 && !looking && (nowMs >= lookAtMs || (leftMs <= 0 && !looked))) {
          looking = begin(look(wanted), () => {
            looking = undefined
          })
        }
        looked ||= looking !== undefined
        if (leftMs <= 0 && !looking && !reading) return []
        if (wanted > 0 && leftMs > 0 && !looking && !reading) {
          reading = begin(read(wanted, leftMs), () => {
            reading = undefined
          })
        }
        const nextMs = looking || leftMs <= 0 ? foreverMs : Math.min(leftMs, wanted > 0 ? lookAtMs - nowMs : leftMs)
        await bell.wait(nextMs, seen, signal)
      }
    },

    async settle(batch, signal) {
      const args = batch.flatMap(({ delivery, outcome }) => fence(delivery as HeldDelivery, outcome))
      const ids = idSpan(batch.map(({ delivery }) => delivery as HeldDelivery))
      const answers = (await run('settle in', signal, settleScript, consumer, ...ids, ...args)) as number[]
      for (const { delivery, outcome } of batch) {
        held.delete(delivery as HeldDelivery)
        if (outcome === 'release') lookAtMs = 0
      }
      bell.ring()
      return answers.map((took) => (took === 1 ? settled : lost))
    },

    async extend(deliveries, signal) {
      const sinceMs = clock.monotonicMs()
      const args = deliveries.flatMap((delivery) => fence(delivery as HeldDelivery))
      const ids = idSpan(deliveries as readonly HeldDelivery[])
      const answers = (await run('extend leases in', signal, extendScript, consumer, ...ids, ...args)) as number[]
      return answers.map((took, i) => {
        const delivery = deliveries[i] as HeldDelivery
        held.delete(delivery)
        if (took !== 1) return lost
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

/** What the scripts check before they touch an entry, and with a wish what to do with it. */
function fence({ id, priorDeliveries, copyId }: HeldDelivery, wish?: Outcome): Argument[] {
  const check = [id, priorDeliveries + 1]
  return wish === undefined ? check : [...check, wish, copyId]
}

function field(fields: readonly Buffer[], name: string): Buffer {
  for (let i = 0; i + 1 < fields.length; i += 2) if (fields[i]!.toString() === name) return fields[i + 1]!
  return Buffer.alloc(0)
}
