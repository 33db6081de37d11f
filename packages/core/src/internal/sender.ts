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
  async send(target: Target, message: Outgoing, deadlineMs: number, signal?: AbortSignal): Promise<void> {
    const [error] = await this.sendMany(target, [message], deadlineMs, signal)
    if (error) throw error
  }

  /** The same for many: what each was refused with, undefined where it is stored. Never rejects. */
  sendMany(
    target: Target,
    messages: readonly Outgoing[],
    deadlineMs: number,
    signal?: AbortSignal,
  ): Promise<(IdemqError | undefined)[]> {
    const key = `send\0${target.name}\0${target.group ?? ''}`
    const batcher = this.#batcher(key, (batch, s) => this.#driver.send(target, batch, s))
    return this.#untilStored(batcher, messages, deadlineMs, signal)
  }

  /** As {@link send}, for a dead letter. */
  async sendDead(queue: QueueRef, message: Outgoing, deadlineMs: number, signal?: AbortSignal): Promise<void> {
    const key = `dead\0${queue.name}\0${queue.group}`
    const batcher = this.#batcher(key, (batch, s) => this.#driver.sendDead(queue, batch, s))
    const [error] = await this.#untilStored(batcher, [message], deadlineMs, signal)
    if (error) throw error
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
    messages: readonly Outgoing[],
    deadlineMs: number,
    signal: AbortSignal | undefined,
  ): Promise<(IdemqError | undefined)[]> {
    const refusals = new Array<IdemqError | undefined>(messages.length).fill(undefined)
    const unknown = new Set<number>()
    let open = [...messages.keys()]
    for (let failures = 0; ; failures++) {
      const batch = failures === 0 ? messages : open.map((index) => messages[index]!)
      const answers = await this.#within(deadlineMs, signal, batcher.addAll(batch))
      open = open.filter((index, i) => {
        // Without an answer the caller's time is up: the call goes on and may store it.
        const sent = answers[i] ?? { status: 'unknown' }
        const refusal = sent.status === 'failed' ? sent.error : undefined
        refusals[index] = refusal
        if (sent.status === 'unknown') unknown.add(index)
        return sent.status === 'unknown' || refusal?.retryable === true
      })
      if (open.length === 0) return refusals
      const pauseMs = ioPauseMs(failures)
      if (!signal?.aborted && this.#clock.monotonicMs() + pauseMs <= deadlineMs) {
        await sleep(this.#clock, pauseMs, signal)
        if (!signal?.aborted) continue
      }
      for (const index of open) {
        if (unknown.has(index)) refusals[index] = this.#unconfirmed(messages[index]!, refusals[index])
      }
      return refusals
    }
  }

  #unconfirmed({ copyId }: Outgoing, refusal: IdemqError | undefined): IdemqError {
    return new IdemqError(
      'SEND_UNKNOWN',
      `${this.#driver.name} did not confirm copy ${copyId}; it may be stored: send again with the same jobId`,
      refusal,
    )
  }

  /** The answers, or those that are there once the caller's time is up. */
  async #within(
    deadlineMs: number,
    signal: AbortSignal | undefined,
    { results, done }: ReturnType<Batcher<Outgoing, Sent>['addAll']>,
  ): Promise<readonly (Sent | undefined)[]> {
    if (deadlineMs === Number.POSITIVE_INFINITY && !signal) await done
    else {
      await new Promise<void>((resolve) => {
        const end = (): void => {
          cancel?.()
          signal?.removeEventListener('abort', end)
          resolve()
        }
        const leftMs = deadlineMs - this.#clock.monotonicMs()
        // In coarse steps, so that many sends share few of the runtime's timer lists.
        const waitMs = Math.ceil(Math.max(0, leftMs) / 100) * 100
        const cancel = leftMs === Number.POSITIVE_INFINITY ? undefined : this.#clock.schedule(end, waitMs)
        signal?.addEventListener('abort', end)
        done.then(end)
      })
    }
    return results
  }
}
