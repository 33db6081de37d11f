/** The broker on Redis Streams: maps the driver contract to scripts, each call one round trip. */
import { randomUUID } from 'node:crypto'
import {
  type Capabilities,
  type Clock,
  type Driver,
  IdemqError,
  type Outgoing,
  type QueueRef,
  type QueueStats,
  type Receiver,
  type Sent,
  type Target,
} from '@idemq/core'
import type { Argument, Script } from './connection.ts'
import { scanDeadLetters } from './dead-letters.ts'
import { queueKey } from './keys.ts'
import { declareScript, format, sendDeadScript, sendScript, statsScript } from './queue-scripts.ts'
import { openReceiver } from './receiver.ts'
import type { Session } from './session.ts'

export interface DriverOptions {
  readonly prefix: string
  readonly clock: Clock
  readonly pollMs: number
  readonly maxBodyBytes: number
}

const maxBatch = 1_000
/** Messages stored by one script: the next ones travel meanwhile, and others wait for it half a millisecond. */
const scriptBatch = 250

/** A name of its own for every receiver of every start of a process: what an earlier one held is never taken for ours. */
const incarnation = randomUUID()
let receiversOpened = 0

export function redisDriver(session: Session, { prefix, clock, pollMs, maxBodyBytes }: DriverOptions): Driver {
  const receivers = new Set<Receiver>()
  let closed = false

  const capabilities: Capabilities = {
    durability: session.options.durability,
    maxBodyBytes,
    maxBatch,
    delayGranularityMs: pollMs,
    returnsBy: 'lease',
    canExtend: true,
    counts: 'every-delivery',
    freeRelease: true,
    dedupesSends: true,
    fencedSettle: true,
    ordering: 'none',
    groups: true,
    deadScan: 'random',
    push: false,
    stats: ['ready', 'delayed', 'inFlight', 'dead', 'oldestReadyAgeMs', 'oldestInFlightAgeMs', 'nextDueInMs'],
  }

  function missing(what: string): IdemqError {
    const { where } = session.options
    const text = `redis: ${where} has no ${what} under '${prefix}': declare it with { declare: 'create' }`
    return new IdemqError('QUEUE_MISSING', text)
  }

  async function declare({ name, group }: Target, mode: 'create' | 'check', signal: AbortSignal): Promise<void> {
    const what = group === undefined ? `queue '${name}'` : `queue '${name}', group '${group}'`
    const args = group === undefined ? [mode] : [mode, group]
    const known = await session.run(`declare ${what}`, signal, declareScript, [queueKey(prefix, name)], args)
    if (known === null) throw missing(what)
    if (String(known) === format) return
    const text = `redis: queue '${name}' is stored in format ${known}, this release reads ${format}`
    throw new IdemqError('QUEUE_MISMATCH', text)
  }

  function fateOf(error: IdemqError): Sent {
    return session.connection.mayHaveHappened(error) ? { status: 'unknown' } : { status: 'failed', error }
  }

  /** Stores what fits; what is too large fails alone, and so do the messages of a script that alone was refused. */
  async function store(
    what: string,
    batch: readonly Outgoing[],
    signal: AbortSignal,
    script: Script,
    key: string,
    argumentsOf: (messages: readonly Outgoing[]) => Argument[],
  ): Promise<Sent[]> {
    const answers = batch.map((message) => sizeAnswer(message, maxBodyBytes))
    const fitting = batch.flatMap((message, place) => (answers[place] === stored ? [{ message, place }] : []))
    const parts = Array.from({ length: Math.ceil(fitting.length / scriptBatch) }, (_, i) =>
      fitting.slice(i * scriptBatch, (i + 1) * scriptBatch),
    )
    const fates = await Promise.all(
      parts.map((part) => {
        const args = argumentsOf(part.map(({ message }) => message))
        return session.run(what, signal, script, [key], args).then(() => stored, fateOf)
      }),
    )
    const [first] = fates
    if (first?.status === 'failed' && fates.every(({ status }) => status === 'failed')) throw first.error
    for (const [i, part] of parts.entries()) for (const { place } of part) answers[place] = fates[i]!
    return answers
  }

  return {
    name: 'redis',
    capabilities,

    async declare(target, mode, signal) {
      await session.check(signal)
      await declare(target, mode, signal)
    },

    async send({ name, group }, batch, signal) {
      return store(`send to '${name}'`, batch, signal, sendScript, queueKey(prefix, name), (fitting) => [
        ...(group === undefined ? ['0', ''] : ['1', group]),
        ...messageArguments(fitting),
      ])
    },

    async sendDead({ name, group }, batch, signal) {
      return store(`dead-letter in '${name}'`, batch, signal, sendDeadScript, queueKey(prefix, name), (fitting) => [
        group,
        ...fitting.flatMap(({ copyId, body }) => [copyId, bytes(body)]),
      ])
    },

    async open(queue, options, signal) {
      const receiver = await openReceiver(
        session,
        queue,
        {
          ...options,
          clock,
          pollMs,
          prefix,
          maxBatch,
          consumer: `${incarnation}-${++receiversOpened}.${Math.ceil(options.leaseMs)}`,
          restore: (restoring) => declare(queue, 'create', restoring),
          onClose: () => receivers.delete(receiver as Receiver),
        },
        signal,
      )
      if (!receiver) throw missing(`queue '${queue.name}', group '${queue.group}'`)
      receivers.add(receiver)
      if (closed) await receiver.close()
      return receiver
    },

    async stats({ name, group }, signal) {
      const figures = await session.run(`count '${name}'`, signal, statsScript, [queueKey(prefix, name)], [group])
      if (figures === null) throw missing(`queue '${name}'`)
      return statsOf(figures as readonly (Buffer | number)[])
    },

    async scanDead(queue: QueueRef, visit, signal) {
      const done = await scanDeadLetters(session, prefix, queue, visit, signal)
      if (!done) throw missing(`queue '${queue.name}'`)
      return done
    },

    async close() {
      closed = true
      await Promise.all([...receivers].map((receiver) => receiver.close()))
      await session.connection.close()
    },
  }
}

const stored: Sent = { status: 'stored' }

function sizeAnswer({ copyId, body }: Outgoing, maxBodyBytes: number): Sent {
  if (body.byteLength <= maxBodyBytes) return stored
  const text = `redis: copy ${copyId} has ${body.byteLength} bytes, the limit is ${maxBodyBytes}`
  return { status: 'failed', error: new IdemqError('BODY_TOO_LARGE', text) }
}

/** As {@link sendScript} takes them. */
function messageArguments(messages: readonly Outgoing[]): Argument[] {
  const copyIds: string[] = []
  const bodies: Buffer[] = []
  const delayed: Argument[] = []
  for (const { copyId, delayMs, body } of messages) {
    if (delayMs > 0) delayed.push(copyId, Math.ceil(delayMs), bytes(body))
    else {
      copyIds.push(copyId)
      bodies.push(bytes(body))
    }
  }
  return [copyIds.length, ...copyIds, ...bodies, ...delayed]
}

/** The same bytes as the client takes them, uncopied. */
function bytes(body: Uint8Array): Buffer {
  return Buffer.isBuffer(body) ? body : Buffer.from(body.buffer, body.byteOffset, body.byteLength)
}

/** From { name, value … }. */
function statsOf(figures: readonly (Buffer | number)[]): QueueStats {
  const stats: Record<string, number> = {}
  for (let i = 0; i + 1 < figures.length; i += 2) stats[String(figures[i])] = Number(figures[i + 1])
  return stats
}
