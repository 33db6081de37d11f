import type { OpenOptions, QueueRef, Receiver } from '@idemq/core'
import type { RedisAdapter } from '../src/options.ts'

/** Never aborts. */
export const signal: AbortSignal = new AbortController().signal

export function openReceiver(
  { driver }: RedisAdapter,
  queue: QueueRef,
  options: Partial<OpenOptions> = {},
): Promise<Receiver> {
  return driver.open(queue, { maxUnsettled: 100, leaseMs: 30_000, onLost: () => {}, ...options }, signal)
}
