import { createHash } from 'node:crypto'
import type { Clock } from '../clock.ts'
import type { Codec, Delivery, Driver, QueueRef } from '../driver.ts'
import { appendFailure, type DeadMark, type DeadReason, type Envelope, longestDelayMs, wireTime } from '../envelope.ts'
import { IdemqError, RetryAfterError } from '../errors.ts'
import { type DeferReason, type Events, jobRef } from '../events.ts'
import type { FailureClass } from '../policy/classify.ts'
import type { Claim, Claims } from './claims.ts'
import { codecOf, outgoingOf } from './codec.ts'
import { reach } from './crash-points.ts'
import type { Ending, Entry } from './entry.ts'
import type { Holds } from './holds.ts'
import type { Sender } from './sender.ts'

export interface EndingsOptions {
  readonly driver: Driver
  readonly queue: QueueRef
  readonly holds: Holds
  readonly claims: Claims
  readonly sender: Sender
  readonly events: Events
  readonly clock: Clock
  /** Aborts when the worker gives up on what is in hand. */
  readonly giveUp: AbortSignal
}

/**
 * Every way a delivery ends. Each keeps the order law: copy confirmed → inbox end → original settled, so that a crash
 * between any two leaves a duplicate for the inbox to collapse, never a hole.
 */
export class Endings {
  readonly #options: EndingsOptions
  readonly #codec: Codec

  constructor(options: EndingsOptions) {
    this.#options = options
    this.#codec = codecOf(options.driver)
  }

  async complete(entry: Entry, claim: Claim, result: string | undefined): Promise<Ending> {
    const { claims, giveUp } = this.#options
    const end = { state: 'completed', floor: claim.attempt, free: false } as const
    const held = await claims.end(claim, result === undefined ? end : { ...end, result }, giveUp)
    return held ? this.completed(entry, result) : this.handBack(entry)
  }

  /** The inbox says completed already: all that is left is the delivery. */
  async completed(entry: Entry, result: string | undefined): Promise<Ending> {
    reach('worker.after_complete', () => [entry.envelope.job_id])
    await this.#ack(entry.delivery)
    return completedWith(result)
  }

  async retry(entry: Entry, claim: Claim, error: Error, wantedMs: number): Promise<Ending> {
    const { claims, giveUp } = this.#options
    const delayMs = this.#withinRetention(wantedMs)
    if (!(await claims.stillHeld(claim, giveUp))) return this.handBack(entry)
    const nextAttempt = claim.attempt + 1
    const { hop: _, not_before: __, unknown_since: ___, ...envelope } = entry.envelope
    await this.#sendCopy(
      { ...envelope, attempt: nextAttempt, failures: this.#failures(entry, claim, error, 'transient') },
      delayMs,
    )
    reach('worker.after_retry_copy', () => [entry.envelope.job_id])
    return this.#release(entry, claim, { floor: nextAttempt, free: false }, delayMs)
  }

  /** Comes back without having used an attempt: snoozed, or drained. */
  async comeBack(entry: Entry, claim: Claim, wantedMs: number, reason: 'snoozed' | DeferReason): Promise<Ending> {
    const { claims, driver, holds, giveUp } = this.#options
    const delayMs = this.#withinRetention(wantedMs)
    const end = { floor: entry.envelope.attempt, free: true }
    this.#deferred(entry.envelope, delayMs, reason)
    if (delayMs === 0 && driver.capabilities.freeRelease) {
      if (!(await claims.end(claim, { state: 'released', ...end }, giveUp))) return this.handBack(entry)
      if (holds.isHeld(entry.delivery)) await holds.settle(entry.delivery, 'release', giveUp)
      return { type: 'again', delayMs }
    }
    if (!(await claims.stillHeld(claim, giveUp))) return this.handBack(entry)
    await this.#sendCopy(nextHop(entry.envelope), delayMs)
    return this.#release(entry, claim, end, delayMs)
  }

  async #release(entry: Entry, claim: Claim, end: { floor: number; free: boolean }, delayMs: number): Promise<Ending> {
    const { claims, giveUp } = this.#options
    await claims.end(claim, { state: 'released', ...end, holdMs: delayMs }, giveUp)
    reach('worker.after_release', () => [entry.envelope.job_id])
    await this.#ack(entry.delivery)
    return { type: 'again', delayMs }
  }

  /** Dead-letters a claimed job with its failures. */
  async bury(entry: Entry, claim: Claim, reason: DeadReason, error?: Error): Promise<Ending> {
    const { claims, giveUp } = this.#options
    if (!(await claims.stillHeld(claim, giveUp))) return this.handBack(entry)
    const failures = error && this.#failures(entry, claim, error, reason === 'exhausted' ? 'transient' : 'permanent')
    const attempt = Math.min(claim.attempt, entry.registration.job.maxAttempts)
    await this.#sendDead(entry.envelope, { attempt, ...(failures && { failures }) }, reason, entry.delivery.body)
    reach('worker.after_dead_copy', () => [entry.envelope.job_id])
    await claims.end(claim, { state: 'failed', floor: claim.attempt, free: false }, giveUp)
    reach('worker.after_fail', () => [entry.envelope.job_id])
    await this.#ack(entry.delivery)
    return { type: 'over' }
  }

  /** Dead-letters a job that was never claimed. */
  async buryUnclaimed(delivery: Delivery, envelope: Envelope, reason: DeadReason): Promise<void> {
    await this.#sendDead(envelope, {}, reason, delivery.body)
    await this.#ack(delivery)
  }

  /** Dead-letters bytes that are no envelope, as they are. Equal bytes are one letter. */
  async buryRaw(delivery: Delivery, reason: 'malformed' | 'unsupported_version'): Promise<void> {
    const { queue, sender, events, giveUp } = this.#options
    const digest = createHash('sha256').update(delivery.body).digest('base64url')
    const message = { copyId: `raw.${digest}`, jobId: `raw.${digest}`, partitionKey: digest }
    await sender.sendDead(
      queue,
      { ...message, body: delivery.body, ordered: false, delayMs: 0 },
      Number.POSITIVE_INFINITY,
      giveUp,
    )
    events.emit('dead_lettered', { queue: queue.name, group: queue.group, reason })
    await this.#ack(delivery)
  }

  /** Comes back later, unclaimed: a copy with the next hop, then the original is removed. */
  async defer(delivery: Delivery, envelope: Envelope, delayMs: number, reason: DeferReason): Promise<Ending> {
    const { driver, holds, giveUp } = this.#options
    // Somebody else has it by now: a copy of ours would only double it.
    if (!holds.isHeld(delivery)) {
      holds.drop(delivery)
      return { type: 'again', delayMs }
    }
    this.#deferred(envelope, delayMs, reason)
    if (delayMs === 0 && driver.capabilities.freeRelease) {
      await holds.settle(delivery, 'release', giveUp)
    } else {
      await this.#sendCopy(nextHop(envelope), delayMs)
      await this.#ack(delivery)
    }
    return { type: 'again', delayMs }
  }

  /** Settled without running. */
  async deduplicate(entry: Entry, reason: 'completed' | 'stale', result?: string): Promise<Ending> {
    const { queue, events } = this.#options
    if (events.wants('deduplicated')) {
      const kept = result === undefined ? {} : { result: JSON.parse(result) as unknown }
      events.emit('deduplicated', { ...jobRef(entry.envelope, queue.name, queue.group), reason, ...kept })
    }
    await this.#ack(entry.delivery)
    return reason === 'completed' ? completedWith(result) : { type: 'over' }
  }

  /**
   * The claim belongs to somebody else. If the delivery is still ours it goes back, to be deduplicated when it returns;
   * if not, there is nothing to do and nothing is done.
   */
  async handBack(entry: Entry): Promise<Ending> {
    const { driver, holds, giveUp } = this.#options
    if (driver.capabilities.freeRelease && driver.capabilities.fencedSettle) {
      await holds.settle(entry.delivery, 'release', giveUp)
    } else if (await holds.confirm(entry.delivery, giveUp)) {
      await this.defer(entry.delivery, entry.envelope, handBackDelayMs, 'claim_lost')
    } else {
      holds.drop(entry.delivery)
    }
    return { type: 'again', delayMs: handBackDelayMs }
  }

  async #ack(delivery: Delivery): Promise<void> {
    await this.#options.holds.settle(delivery, 'ack', this.#options.giveUp)
  }

  #failures(entry: Entry, claim: Claim, error: Error, failureClass: FailureClass): Envelope['failures'] & object {
    return appendFailure(entry.envelope, {
      attempt: claim.attempt,
      at: wireTime(this.#options.clock.now()),
      class: failureClass,
      name: error.name,
      message: error.message,
    })
  }

  async #sendCopy(copy: Envelope, delayMs: number): Promise<void> {
    const { driver, queue, sender, clock, giveUp } = this.#options
    const { maxDelayMs = Number.POSITIVE_INFINITY } = driver.capabilities
    const envelope = delayMs > maxDelayMs ? { ...copy, not_before: wireTime(clock.now() + delayMs) } : copy
    const message = outgoingOf(envelope, this.#bounded(envelope), Math.min(delayMs, maxDelayMs))
    await sender.send(queue, message, Number.POSITIVE_INFINITY, giveUp)
  }

  async #sendDead(
    envelope: Envelope,
    changes: Partial<Envelope>,
    reason: DeadReason,
    original: Uint8Array,
  ): Promise<void> {
    const { driver, queue, sender, events, clock, giveUp } = this.#options
    const dead: DeadMark = { reason, at: wireTime(clock.now()), queue: queue.name, group: queue.group }
    const bounded = this.#bounded({ ...envelope, ...changes, dead })
    const body = bounded.byteLength <= driver.capabilities.maxBodyBytes ? bounded : original
    await sender.sendDead(queue, outgoingOf(envelope, body, 0), Number.POSITIVE_INFINITY, giveUp)
    const job = jobRef(envelope, queue.name, queue.group, changes.attempt)
    events.emit('dead_lettered', { queue: queue.name, group: queue.group, reason, job })
  }

  /** A foreign producer may have filled the broker's limit: then the job is kept whole and its failures are not. */
  #bounded(envelope: Envelope): Uint8Array {
    const body = this.#codec.encode(envelope)
    if (body.byteLength <= this.#options.driver.capabilities.maxBodyBytes) return body
    const { failures: _, ...bare } = envelope
    return this.#codec.encode(bare)
  }

  /** A copy that waited longer than the broker keeps messages would be lost. */
  #withinRetention(delayMs: number): number {
    const { retentionMs } = this.#options.driver.capabilities
    return retentionMs === undefined ? delayMs : Math.min(delayMs, Math.floor(retentionMs * 0.9))
  }

  #deferred(envelope: Envelope, delayMs: number, reason: 'snoozed' | DeferReason): void {
    const { events, queue } = this.#options
    const ref = (): ReturnType<typeof jobRef> => jobRef(envelope, queue.name, queue.group)
    if (reason === 'snoozed') {
      if (events.wants('snoozed')) events.emit('snoozed', { ...ref(), delayMs })
    } else if (events.wants('deferred')) events.emit('deferred', { ...ref(), delayMs, reason })
  }
}

const handBackDelayMs = 1_000

function completedWith(result: string | undefined): Ending {
  return result === undefined ? { type: 'completed' } : { type: 'completed', result }
}

/** The next copy of the same attempt. */
function nextHop(envelope: Envelope): Envelope {
  return { ...envelope, hop: (envelope.hop ?? 0) + 1 }
}

/** What a failure costs in time: the job's backoff, the dependency's wish, and the budget's pace. */
export function retryDelay(
  entry: Entry,
  attempt: number,
  error: Error,
  clock: Clock,
  random: () => number,
): { delayMs: number; overBudget: boolean } {
  const { backoff, budget } = entry.registration.job
  const ownMs = backoff.delayMs(attempt, random())
  if (!(ownMs >= 0)) throw new IdemqError('INVALID_OPTION', `the backoff of attempt ${attempt} is ${ownMs} ms`)
  // A header that was not a number makes no wish.
  const wishedMs = error instanceof RetryAfterError && Number.isFinite(error.retryAfterMs) ? error.retryAfterMs : 0
  const overBudget = !budget.withdraw(clock)
  const delayMs = Math.max(wishedMs, ownMs, overBudget ? backoff.maxMs : 0)
  return { delayMs: Math.min(delayMs, longestDelayMs), overBudget }
}
