export interface RetryBurst {
  readonly retries: number
  readonly durationMs: number
}

/** Retries within `windowMs` that make a burst. */
const burstRetries = 15
const windowMs = 1_000

/**
 * Tells bursts from the steady trickle: a window with `burstRetries` begins one, the first quiet window ends it.
 * Call `add` for every retry and `look` now and then; it answers with a burst once, when that is over.
 */
export class RetryBursts {
  #windowFromMs = 0
  #inWindow = 0
  #burst: { retries: number; fromMs: number } | undefined

  add(retries: number, nowMs: number): RetryBurst | undefined {
    const over = this.look(nowMs)
    this.#inWindow += retries
    return over
  }

  look(nowMs: number): RetryBurst | undefined {
    if (nowMs - this.#windowFromMs < windowMs) return undefined
    const windowFromMs = this.#windowFromMs
    const retries = this.#inWindow
    this.#windowFromMs = nowMs
    this.#inWindow = 0
    if (retries >= burstRetries) {
      this.#burst ??= { retries: 0, fromMs: windowFromMs }
      this.#burst.retries += retries
      return undefined
    }
    const burst = this.#burst
    this.#burst = undefined
    return burst && { retries: burst.retries, durationMs: windowFromMs - burst.fromMs }
  }
}
