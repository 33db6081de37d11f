import { CircuitState as BreakerState, CountBreaker } from 'cockatiel'
import type { Clock } from '../clock.ts'
import { IdemqError } from '../errors.ts'

export type CircuitState = 'closed' | 'open' | 'half_open'

export interface CircuitOptions {
  /** What it guards, for events and status. */
  readonly name: string
  /** Share of transient failures among the last `windowCalls` that opens it, above 0 and below 1. @default 0.5 */
  readonly failureRatio?: number
  /** Calls looked at. @default 20 */
  readonly windowCalls?: number
  /** Milliseconds open before one probe is let through. @default 10_000 */
  readonly cooldownMs?: number
}

/**
 * Stops calling a sick dependency. Share one object between the jobs that call it. While it is open, the worker pauses
 * consumption where it covers every handler of the queue, else defers just those jobs; no attempt is used. Half open:
 * one probe; then a ramp of 1, 2, 4 … jobs at once until it is closed again.
 *
 * Only transient failures count: a declined card is not a sick provider. The window is cockatiel's CountBreaker; the
 * state machine is ours because its waits must follow the worker's clock and span pausing a queue.
 */
export interface Circuit {
  readonly name: string
  readonly state: CircuitState
  /** A pass if a job may start now; it counts as running until it ends. Half-opens when the cooldown has passed. */
  tryStart(clock: Clock): CircuitPass | undefined
  /** Milliseconds until a start may be worth a try; 0 = now. */
  retryInMs(clock: Clock): number
  /** Calls back on every change of state; returns what unsubscribes. */
  onChange(listener: (state: CircuitState) => void): () => void
}

/** What a start told about the dependency behind it; 'neutral' is nothing. */
export type CircuitOutcome = 'success' | 'failure' | 'neutral'

/** One start that a circuit let through. */
export interface CircuitPass {
  /** To be called once. */
  end(outcome: CircuitOutcome, clock: Clock): void
}

const busyRetryMs = 100

/** @throws IdemqError INVALID_OPTION */
export function circuitBreaker(options: CircuitOptions): Circuit {
  const { name, failureRatio = 0.5, windowCalls = 20, cooldownMs = 10_000 } = options
  if (!(failureRatio > 0 && failureRatio < 1) || !(windowCalls >= 1) || !(cooldownMs >= 1)) {
    throw new IdemqError(
      'INVALID_OPTION',
      `circuitBreaker('${name}'): needs 0 < failureRatio < 1, windowCalls ≥ 1, cooldownMs ≥ 1`,
    )
  }
  const newBreaker = (): CountBreaker => new CountBreaker({ threshold: failureRatio, size: windowCalls })
  let breaker = newBreaker()
  let state: CircuitState = 'closed'
  let openUntilMs = 0
  let running = 0
  /** Jobs at once while recovering; Infinity = not recovering. */
  let allowance = Number.POSITIVE_INFINITY
  const listeners = new Set<(state: CircuitState) => void>()

  const become = (next: CircuitState): void => {
    if (next === state) return
    state = next
    for (const listener of listeners) listener(next)
  }
  /** Raised at every opening: what started before it says nothing about the dependency after it. */
  let epoch = 0
  const open = (clock: Clock): void => {
    openUntilMs = clock.monotonicMs() + cooldownMs
    epoch++
    running = 0
    become('open')
  }
  const ended = (outcome: CircuitOutcome, clock: Clock): void => {
    running--
    if (outcome === 'neutral') return
    if (state === 'half_open') {
      if (outcome === 'failure') return open(clock)
      breaker = newBreaker()
      allowance = 2
      return become('closed')
    }
    if (outcome === 'success') {
      breaker.success(BreakerState.Closed)
      allowance = allowance >= windowCalls ? Number.POSITIVE_INFINITY : allowance * 2
      return
    }
    const trips = breaker.failure(BreakerState.Closed)
    // While it ramps up, one failure is enough: the dependency was sick a moment ago.
    if (trips || allowance < Number.POSITIVE_INFINITY) open(clock)
  }

  return {
    name,
    get state() {
      return state
    },
    tryStart(clock) {
      if (state === 'open') {
        if (clock.monotonicMs() < openUntilMs) return undefined
        allowance = 1
        become('half_open')
      }
      if (running >= allowance) return undefined
      running++
      const startedIn = epoch
      return {
        end(outcome, now) {
          if (startedIn === epoch) ended(outcome, now)
        },
      }
    },
    retryInMs(clock) {
      if (state === 'open') return Math.max(0, openUntilMs - clock.monotonicMs())
      return running >= allowance ? busyRetryMs : 0
    },
    onChange(listener) {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
  }
}
