import type { Clock } from '../clock.ts'
import { IdemqError } from '../errors.ts'

export interface RetryBudgetOptions {
  /** Retries allowed per first attempt, from 0 to 1. @default 0.2 */
  readonly ratio?: number
  /** Retries a second allowed whatever the traffic. @default 10 */
  readonly minPerSecond?: number
}

/**
 * Bounds how much retries add to the load of a dependency. Share one object between the jobs that call the same
 * dependency. An empty budget stretches the delay; it never buries a job.
 *
 * A token bucket that holds ten seconds' worth, as in Finagle's RetryBudget.
 */
export interface RetryBudget {
  /** Counts traffic: one first attempt. */
  deposit(clock: Clock): void
  /** True if a retry may go at its own pace now; takes one token. */
  withdraw(clock: Clock): boolean
}

const windowSeconds = 10

/** @throws IdemqError INVALID_OPTION */
export function retryBudget(options: RetryBudgetOptions = {}): RetryBudget {
  const { ratio = 0.2, minPerSecond = 10 } = options
  if (!(ratio >= 0 && ratio <= 1) || !(minPerSecond >= 0)) {
    throw new IdemqError('INVALID_OPTION', 'retryBudget: needs 0 ≤ ratio ≤ 1 and minPerSecond ≥ 0')
  }
  const floor = minPerSecond * windowSeconds
  let tokens = floor
  let deposited = 0
  let refilledAtMs: number | undefined
  const refill = (clock: Clock): void => {
    const nowMs = clock.monotonicMs()
    const seconds = (nowMs - (refilledAtMs ?? nowMs)) / 1000
    refilledAtMs = nowMs
    // What traffic earned fades over the window, so that an old rush pays for no new storm.
    deposited *= Math.exp(-seconds / windowSeconds)
    tokens = Math.min(tokens + seconds * minPerSecond, floor + deposited)
  }
  return {
    deposit(clock) {
      refill(clock)
      deposited += ratio
      tokens += ratio
    },
    withdraw(clock) {
      refill(clock)
      if (tokens < 1) return false
      tokens -= 1
      return true
    },
  }
}
