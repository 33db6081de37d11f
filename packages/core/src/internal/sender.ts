import { type Clock, sleep } from '../clock.ts'
import type { Driver, Outgoing, QueueRef, Sent, Target } from '../driver.ts'
import { asIdemqError, IdemqError } from '../errors.ts'
import { Batcher } from './batcher.ts'
import { callTimeoutMs, ioPauseMs, timed } from './persist.ts'

/**
 * Sends with group commit, one batcher a target, and repeats what failed or is unknown: a copyId makes a repeat
 * harmless where the broker remembers it, and the inbox absorbs it elsewhere.
 */
export class Sender {
  readonly #driver: Driver
  readonly #clock: Clock
  readonly #batchers = new Map<string, Batcher<Outgoing, Sent>>()

  constructor(driver: Driver, clock: Clock) {
    this.#driver = driver
    this.#clock = clock
  }

  /**
   * Resolves when the broker confirmed it. Tries until `deadlineMs` of the monotonic clock.
   * @throws IdemqError SEND_UNKNOWN where the last try may have stored it, else what the broker said
   */
  send(target: Target, message: Outgoing, deadlineMs: number, signal?: AbortSignal): Promise<void> {
    const key = `send\0${target.name}\0${target.group ?? ''}`
    const batcher = this.#batcher(key, (batch, s) => this.#driver.send(target, batch, s))
    return this.#untilStored(batcher, message, deadlineMs, signal)
  }

  /** The same for a dead letter. */
  sendDead(queue: QueueRef, message: Outgoing, deadlineMs: number, signal?: AbortSignal): Promise<void> {
    const key = `dead\0${queue.name}\0${queue.group}`
    const batcher = this.#batcher(key, (batch, s) => this.#driver.sendDead(queue, batch, s))
    return this.#untilStored(batcher, message, deadlineMs, signal)
  }

  #batcher(key: string, call: (batch: Outgoing[], signal: AbortSignal) => Promise<Sent[]>): Batcher<Outgoing, Sent> {
    let batcher = this.#batchers.get(key)
    if (!batcher) {
      batcher = new Batcher(this.#driver.capabilities.maxBatch, async (batch) => {
        try {
          return await timed(this.#clock, callTimeoutMs, undefined, (signal) => call(batch, signal))
        } catch (thrown) {
          const error = asIdemqError(thrown, 'BROKER_UNAVAILABLE', `send to ${this.#driver.name}`)
          // A call that was cut off may have arrived; one that was refused has not.
          const answer: Sent = error.code === 'TIMEOUT' ? { status: 'unknown' } : { status: 'failed', error }
          return batch.map(() => answer)
        }
      })
      this.#batchers.set(key, batcher)
    }
    return batcher
  }

  async #untilStored(
    batcher: Batcher<Outgoing, Sent>,
    message: Outgoing,
    deadlineMs: number,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    let unknown = false
    for (let failures = 0; ; failures++) {
      const sent = await this.#within(deadlineMs, signal, batcher.add(message))
      if (sent.status === 'stored') return
      const refusal = sent.status === 'failed' ? sent.error : undefined
      if (!refusal) unknown = true
      else if (!refusal.retryable) throw refusal
      const pauseMs = ioPauseMs(failures)
      if (!signal?.aborted && this.#clock.monotonicMs() + pauseMs <= deadlineMs) {
        await sleep(this.#clock, pauseMs, signal)
        if (!signal?.aborted) continue
      }
      if (refusal && !unknown) throw refusal
      throw new IdemqError(
        'SEND_UNKNOWN',
        `${this.#driver.name} did not confirm copy ${message.copyId}; it may be stored: send again with the same jobId`,
        refusal,
      )
    }
  }

  /** The answer, or 'unknown' once the caller's time is up: the call goes on and may store it. */
  #within(deadlineMs: number, signal: AbortSignal | undefined, answer: Promise<Sent>): Promise<Sent> {
    if (deadlineMs === Number.POSITIVE_INFINITY && !signal) return answer
    return new Promise((resolve) => {
      const giveUp = (): void => done({ status: 'unknown' })
      const done = (sent: Sent): void => {
        cancel?.()
        signal?.removeEventListener('abort', giveUp)
        resolve(sent)
      }
      const leftMs = deadlineMs - this.#clock.monotonicMs()
      // In coarse steps, so that many sends share few of the runtime's timer lists.
      const waitMs = Math.ceil(Math.max(0, leftMs) / 100) * 100
      const cancel = leftMs === Number.POSITIVE_INFINITY ? undefined : this.#clock.schedule(giveUp, waitMs)
      signal?.addEventListener('abort', giveUp)
      answer.then(done)
    })
  }
}
