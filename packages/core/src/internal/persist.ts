import { type Clock, sleep } from '../clock.ts'
import { asIdemqError, IdemqError } from '../errors.ts'

/** Longest wait for one answer of a broker or store. */
export const callTimeoutMs: number = 30_000
/** How long the start of a worker or relay repeats what may pass by itself. */
export const startTimeoutMs: number = 10_000

const firstPauseMs = 20
const longestPauseMs = 2_000

/** The pause before try `n + 2` of an I/O operation: doubles from 20 ms to 2 s, jittered by half. */
export function ioPauseMs(failures: number): number {
  const cap = Math.min(longestPauseMs, firstPauseMs * 2 ** Math.min(failures, 10))
  return cap * (0.5 + Math.random() / 2)
}

export interface PersistOptions {
  readonly clock: Clock
  /** Gives up when it aborts. */
  readonly signal?: AbortSignal
  /** Instant of the monotonic clock after which no new try begins. Absent = until `signal` aborts. */
  readonly deadlineMs?: number
  readonly operation: string
  readonly onTrouble?: (error: IdemqError) => void
}

/**
 * Runs an I/O operation until it succeeds, its error is not retryable, or time is up. Rejects with the last error.
 * Only for operations that are safe to repeat.
 */
export async function persist<T>(run: () => Promise<T>, options: PersistOptions): Promise<T> {
  const { clock, signal, deadlineMs = Number.POSITIVE_INFINITY, operation, onTrouble } = options
  for (let failures = 0; ; failures++) {
    try {
      return await run()
    } catch (thrown) {
      const error = asIdemqError(thrown, 'BROKER_UNAVAILABLE', operation)
      const pauseMs = ioPauseMs(failures)
      if (!error.retryable || signal?.aborted || clock.monotonicMs() + pauseMs > deadlineMs) throw error
      onTrouble?.(error)
      await sleep(clock, pauseMs, signal)
      if (signal?.aborted) throw error
    }
  }
}

/**
 * Runs one I/O call with a signal that aborts after `timeoutMs` or with `parent`. Too late is TIMEOUT, whatever the call
 * makes of its signal: it is worth repeating, and it may have taken effect.
 */
export async function timed<T>(
  clock: Clock,
  timeoutMs: number,
  parent: AbortSignal | undefined,
  run: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const controller = new AbortController()
  const abort = (): void => controller.abort(parent?.reason)
  if (parent?.aborted) abort()
  parent?.addEventListener('abort', abort)
  let late: IdemqError | undefined
  const cancel = clock.schedule(() => {
    late = new IdemqError('TIMEOUT', `no answer within ${timeoutMs} ms`)
    controller.abort(late)
  }, timeoutMs)
  try {
    return await run(controller.signal)
  } catch (thrown) {
    throw late && thrown !== late ? new IdemqError('TIMEOUT', late.message, thrown) : thrown
  } finally {
    cancel()
    parent?.removeEventListener('abort', abort)
  }
}

/** Rejects with the first rejection, once everything has ended. */
export function throwFirst(results: readonly PromiseSettledResult<unknown>[]): void {
  const failed = results.find((result) => result.status === 'rejected')
  if (failed) throw failed.reason
}
