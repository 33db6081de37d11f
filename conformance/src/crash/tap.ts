/**
 * Watches an adapter from where core stands: states what was asked and answered, and calls out at the edges. It changes
 * nothing; a negative control sits beneath it, so that what a wrong part claims is what gets judged.
 */
import {
  type Adapter,
  type ClaimEnd,
  type ClaimRef,
  type Codec,
  copyIdOf,
  type Delivery,
  type Driver,
  decodeEnvelope,
  type Envelope,
  type InboxStore,
  type OutboxStore,
  type Outgoing,
  type Receiver,
  type Token,
} from '@idemq/core'
import type { StatedEnd, StatementLog } from '../oracle/statements.ts'
import type { Edge } from './plans.ts'

export interface Tap {
  readonly adapter: Adapter
  /** The claim this process was last granted on a key; '' if none. */
  tokenOf(scope: string, key: string): string
}

export interface TapOptions {
  readonly adapter: Adapter
  readonly log: StatementLog
  /** Names this process in ids that must be unique in the run. */
  readonly name: string
  readonly onEdge: (edge: Edge, jobIds: readonly string[]) => void
}

export function tapAdapter(options: TapOptions): Tap {
  const tokens = new Map<string, Held>()
  const { driver, inbox, outbox } = options.adapter
  return {
    adapter: {
      driver: tapDriver(driver, options),
      ...(inbox && { inbox: tapInbox(inbox, options, tokens) }),
      ...(outbox && { outbox: tapOutbox(outbox, options) }),
    },
    tokenOf: (scope, key) => tokens.get(slot(scope, key))?.token ?? '',
  }
}

/** What this process was last granted on a key. */
interface Held {
  readonly token: string
  readonly jobId: string
}

function slot(scope: string, key: string): string {
  return `${scope}\0${key}`
}

/** The envelope in a body, if there is one. */
export function readBody(codec: Codec | undefined, body: Uint8Array): Envelope | undefined {
  try {
    return codec ? codec.decode(body) : decodeEnvelope(body)
  } catch {
    return undefined
  }
}

function tapDriver(driver: Driver, { log, name, onEdge }: TapOptions): Driver {
  const jobIds = (batch: readonly Outgoing[]): string[] => batch.map(({ jobId }) => jobId)
  return {
    ...bound(driver),
    async send(target, batch, signal) {
      for (const { copyId, delayMs } of batch) {
        if (delayMs > 0) log.write({ type: 'delaying', copyId, dueAtMs: Date.now() + delayMs })
      }
      onEdge('send.before', jobIds(batch))
      const sent = await driver.send(target, batch, signal)
      onEdge('send.after', jobIds(batch))
      return sent
    },
    async sendDead(queue, batch, signal) {
      const sent = await driver.sendDead(queue, batch, signal)
      batch.forEach(({ jobId }, i) => {
        if (sent[i]?.status === 'stored') log.write({ type: 'dead_stored', jobId })
      })
      return sent
    },
    async open(queue, open, signal) {
      return tapReceiver(await driver.open(queue, open, signal), driver.codec, { log, name, onEdge })
    },
  }
}

let deliveries = 0

function tapReceiver(
  receiver: Receiver,
  codec: Codec | undefined,
  { log, name, onEdge }: Pick<TapOptions, 'log' | 'name' | 'onEdge'>,
): Receiver {
  const known = new WeakMap<Delivery, { readonly id: string; readonly jobId: string }>()
  return {
    ...bound(receiver),
    async receive(max, waitMs, signal) {
      const received = await receiver.receive(max, waitMs, signal)
      for (const delivery of received) {
        const envelope = readBody(codec, delivery.body)
        const id = `${name}/${++deliveries}`
        const jobId = envelope?.job_id ?? 'raw'
        known.set(delivery, { id, jobId })
        if (!envelope) continue
        const prior = delivery.priorDeliveries
        const copyId = copyIdOf(envelope)
        log.write({ type: 'received', delivery: id, copyId, jobId, ...(prior !== undefined && { prior }) })
      }
      return received
    },
    async settle(batch, signal) {
      const about = batch.map(({ delivery }) => known.get(delivery) ?? { id: 'unknown', jobId: 'unknown' })
      const jobIds = about.map(({ jobId }) => jobId)
      onEdge('settle.before', jobIds)
      for (const { id } of about) log.write({ type: 'settling', delivery: id })
      const settled = await receiver.settle(batch, signal)
      about.forEach(({ id }, i) => {
        log.write({ type: 'settled', delivery: id, status: settled[i]?.status ?? 'none' })
      })
      onEdge('settle.after', jobIds)
      return settled
    },
  }
}

function tapInbox(inbox: InboxStore, options: TapOptions, tokens: Map<string, Held>): InboxStore {
  const { log, name, onEdge } = options
  let calls = 0
  const nextCall = (): string => `${name}#${++calls}`
  const jobIdsOf = (batch: readonly ClaimRef[]): string[] =>
    batch.map(({ scope, key }) => tokens.get(slot(scope, key))?.jobId ?? 'unknown')
  return {
    ...bound(inbox),
    async claim(batch, times, signal) {
      const call = nextCall()
      const claims = batch.map(({ scope, key, jobId, replay, attempt, fingerprint }) => {
        return { scope, key, jobId, replay, attempt, fingerprint }
      })
      const jobIds = batch.map(({ jobId }) => jobId)
      onEdge('claim.before', jobIds)
      log.write({ type: 'claiming', call, claims })
      const answers = await inbox.claim(batch, times, signal)
      const stated = answers.map((answer, i) => {
        if (answer.status !== 'claimed') return { status: answer.status }
        const { scope, key } = batch[i]!
        tokens.set(slot(scope, key), { token: String(answer.token), jobId: batch[i]!.jobId })
        return { status: answer.status, token: String(answer.token), attempt: answer.attempt }
      })
      log.write({ type: 'claimed', call, answers: stated })
      return answers
    },
    async record(batch, signal) {
      const held = await inbox.record(batch, signal)
      batch.forEach(({ scope, key, token, step }, i) => {
        if (held[i] === 'held') log.write({ type: 'memo', scope, key, token: String(token), step })
      })
      return held
    },
    async end(batch, retentionMs, signal) {
      const call = nextCall()
      onEdge('end.before', jobIdsOf(batch))
      log.write({ type: 'ending', call, ends: batch.map(statedEnd) })
      const held = await inbox.end(batch, retentionMs, signal)
      log.write({ type: 'ended', call, held: held.map((answer) => answer === 'held') })
      return held
    },
    ...(inbox.transact && {
      async transact<T>(
        effect: (tx: unknown) => Promise<T>,
        end: (result: T) => ClaimEnd,
        retentionMs: number,
        signal: AbortSignal,
      ) {
        const call = nextCall()
        const stateEnd = (result: T): ClaimEnd => {
          const ending = end(result)
          onEdge('transact.before_end', jobIdsOf([ending]))
          log.write({ type: 'ending', call, ends: [statedEnd(ending)] })
          return ending
        }
        const outcome = await inbox.transact!(effect, stateEnd, retentionMs, signal)
        log.write({ type: 'ended', call, held: [outcome.status === 'committed'] })
        return outcome
      },
    }),
  }
}

function statedEnd(end: ClaimRef & Omit<StatedEnd, 'token'> & { readonly token: Token }): StatedEnd {
  const { scope, key, token, state, floor, free } = end
  return { scope, key, token: String(token), state, floor, free }
}

function tapOutbox(outbox: OutboxStore, { onEdge }: TapOptions): OutboxStore {
  return {
    ...bound(outbox),
    async markSent(claims, signal) {
      const jobIds = claims.map(({ row }) => row.jobId)
      onEdge('outbox.before_mark', jobIds)
      await outbox.markSent(claims, signal)
      onEdge('outbox.after_mark', jobIds)
    },
  }
}

/**
 * The object with every method bound to it and every other property readable, to be spread and partly replaced:
 * adapters may be classes, whose methods a plain spread would lose.
 */
export function bound<T extends object>(target: T): T {
  const copy: Record<PropertyKey, unknown> = {}
  for (let level: object | null = target; level && level !== Object.prototype; level = Object.getPrototypeOf(level)) {
    for (const name of Reflect.ownKeys(level)) {
      if (name === 'constructor' || name in copy) continue
      const value: unknown = Reflect.get(target, name)
      copy[name] = typeof value === 'function' ? value.bind(target) : value
    }
  }
  return copy as T
}
