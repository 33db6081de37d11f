import { IdemqError } from '../errors.ts'

/** How long to wait before an attempt. `attempt` is the one that failed, from 1; `random` is in [0, 1). */
export interface Backoff {
  delayMs(attempt: number, random: number): number
  /** The longest delay it can give, so that start-up can warn about retention. */
  readonly maxMs: number
}

export interface ExponentialOptions {
  /** Cap of the first delay in milliseconds, from 1. */
  readonly baseMs: number
  /** Cap of every delay in milliseconds, at least `baseMs`. */
  readonly maxMs: number
  /** Growth per attempt, from 1. @default 2 */
  readonly factor?: number
  /** No delay is below this. @default baseMs / 2 */
  readonly minMs?: number
}

/**
 * Exponential backoff with full jitter above a floor: uniform between `minMs` and min(maxMs, baseMs × factorⁿ⁻¹).
 * Full jitter after Marc Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015).
 * @throws IdemqError INVALID_OPTION
 */
export function exponential(options: ExponentialOptions): Backoff {
  const { baseMs, maxMs, factor = 2, minMs = baseMs / 2 } = options
  const bounded = Number.isFinite(maxMs) && Number.isFinite(factor)
  if (!bounded || !(baseMs >= 1) || !(maxMs >= baseMs) || !(factor >= 1) || !(minMs >= 0) || !(minMs <= baseMs)) {
    throw new IdemqError(
      'INVALID_OPTION',
      `exponential(${JSON.stringify(options)}): needs 1 ≤ baseMs ≤ maxMs < ∞, factor ≥ 1, 0 ≤ minMs ≤ baseMs`,
    )
  }
  return {
    maxMs,
    delayMs(attempt, random) {
      const cap = Math.min(maxMs, baseMs * factor ** (attempt - 1))
      return Math.round(minMs + random * (cap - minMs))
    },
  }
}

/** The same delay every time. @throws IdemqError INVALID_OPTION */
export function fixed(delayMs: number): Backoff {
  if (!(delayMs >= 0 && Number.isFinite(delayMs))) {
    throw new IdemqError('INVALID_OPTION', `fixed(${delayMs}): must be 0 ms or more, and finite`)
  }
  return { maxMs: delayMs, delayMs: () => delayMs }
}
