import type { Clock } from './clock.ts'
import type { Driver } from './driver.ts'
import type { InboxStore, OutboxStore } from './store.ts'

/** What an adapter package gives for one broker: its driver and, where the same server has them, natural stores. */
export interface Adapter {
  readonly driver: Driver
  /** Used by workers by default. Absent where the broker has no natural inbox: workers must then be given one. */
  readonly inbox?: InboxStore
  readonly outbox?: OutboxStore
}

export interface AdapterContext {
  readonly clock: Clock
}

/**
 * The `openUrl` every adapter package exports, found by the `idemq.schemes` of its package.json.
 * @throws IdemqError INVALID_URL naming the part
 */
export type OpenUrl = (url: URL, context: AdapterContext) => Promise<Adapter>
