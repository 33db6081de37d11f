/** Waiting by condition, never by hope; and letting time pass where its passage is what is tested. */
import { AssertionError } from 'node:assert/strict'
import { inspect } from 'node:util'
import { IdemqError } from '@idemq/core'

/** How fast time may run against one broker or store. Everything in milliseconds. */
export interface Scale {
  /** A lease the broker honours exactly, as short as it reliably can. @default 500 */
  readonly leaseMs?: number
  /** A delay that can be told from none. @default 200 */
  readonly delayMs?: number
  /** How much later than promised something may be: machine noise and the network. @default 2_000 */
  readonly toleranceMs?: number
  /** By when what must happen eventually has happened. @default 10_000 */
  readonly eventuallyMs?: number
}

const defaults: Required<Scale> = { leaseMs: 500, delayMs: 200, toleranceMs: 2_000, eventuallyMs: 10_000 }

/** @throws IdemqError INVALID_OPTION */
export function resolveScale(scale: Scale = {}): Required<Scale> {
  const resolved = { ...defaults, ...scale }
  for (const [name, value] of Object.entries(resolved)) {
    if (!(Number.isFinite(value) && value > 0)) {
      throw new IdemqError('INVALID_OPTION', `scale.${name} is ${value}, must be a positive number of milliseconds`)
    }
  }
  return resolved
}

/** Monotonic milliseconds. */
export function nowMs(): number {
  return performance.now()
}

/**
 * Lets `ms` pass. Only for what is about time itself (a lease runs out, nothing comes early); anything else waits with
 * {@link until}.
 */
export function pass(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, Math.max(0, ms)))
}

/** Asks `probe` again and again until `done` accepts its answer, which is returned. Fails with the last answer. */
export async function until<T>(
  what: string,
  deadlineMs: number,
  probe: () => Promise<T> | T,
  done: (value: T) => boolean,
): Promise<T> {
  const endMs = nowMs() + deadlineMs
  for (let pauseMs = 2; ; pauseMs = Math.min(pauseMs * 2, 50)) {
    const value = await probe()
    if (done(value)) return value
    if (nowMs() >= endMs) {
      throw new AssertionError({ message: `waited ${deadlineMs} ms for ${what}; last seen: ${inspect(value)}` })
    }
    await pass(pauseMs)
  }
}
