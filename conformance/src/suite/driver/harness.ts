/** What an adapter author gives to {@link driverSuite}, and the gates its capabilities open. */
import type { Adapter, Capabilities, InboxStore, QueueRef } from '@idemq/core'
import type { Gate } from '../case.ts'
import type { Scale } from '../wait.ts'

export interface DriverHarness {
  /** Heads every case. */
  readonly name: string
  /** The manifest: must equal `driver.capabilities`. Given here because cases are registered before anything connects. */
  readonly capabilities: Capabilities
  /** A fresh connection to the same broker, as another process would have. The suite closes its driver. */
  readonly createAdapter: () => Promise<Adapter>
  /** For adapters without an inbox of their own: a connection to one inbox that all workers share. The suite closes it. */
  readonly createInbox?: () => Promise<InboxStore>
  readonly scale?: Scale
  /** For push brokers: routes the broker's requests for `queue` to `fetch` until the result is called. */
  readonly mount?: (queue: QueueRef, fetch: (request: Request) => Promise<Response>) => Promise<() => Promise<void>>
  /** Stops the broker cleanly and starts it again. Resolves when it accepts connections. */
  readonly restart?: () => Promise<void>
  /** The same without warning (SIGKILL). */
  readonly kill?: () => Promise<void>
  /** Breaks the connections of one adapter without goodbye, as the death of its process would. */
  readonly sever?: (adapter: Adapter) => Promise<void>
  /** Makes a queue that exists with settings the adapter must refuse, by means of the broker's own. */
  readonly createMismatch?: (queue: QueueRef) => Promise<void>
}

type DriverGate = Gate<DriverHarness>

const capability = (text: string, holds: (manifest: Capabilities) => boolean): DriverGate => ({
  text,
  holds: (harness) => holds(harness.capabilities),
})

/** Bodies above this are not built in a test, whatever the broker takes. */
export const largestTestBodyBytes: number = 32 * 1024 * 1024

export const byLease: DriverGate = capability("returnsBy: 'lease'", (c) => c.returnsBy === 'lease')
export const notByLease: DriverGate = capability("returnsBy: not 'lease'", (c) => c.returnsBy !== 'lease')
/** Another receiver can have what this one does not hold, at once. A rebalance gives whole partitions instead. */
export const sharesFreely: DriverGate = capability("returnsBy: not 'rebalance'", (c) => c.returnsBy !== 'rebalance')
export const extends_: DriverGate = capability('canExtend', (c) => c.canExtend)
export const noExtend: DriverGate = capability('canExtend: false', (c) => !c.canExtend)
export const freeRelease: DriverGate = capability('freeRelease', (c) => c.freeRelease)
export const noFreeRelease: DriverGate = capability('freeRelease: false', (c) => !c.freeRelease)
export const dedupesSends: DriverGate = capability('dedupesSends', (c) => c.dedupesSends)
export const noSendDedupe: DriverGate = capability('dedupesSends: false', (c) => !c.dedupesSends)
export const counting: DriverGate = capability("counts: not 'none'", (c) => c.counts !== 'none')
export const noCounting: DriverGate = capability("counts: 'none'", (c) => c.counts === 'none')
export const ordering: DriverGate = capability("ordering: not 'none'", (c) => c.ordering !== 'none')
export const noOrdering: DriverGate = capability("ordering: 'none'", (c) => c.ordering === 'none')
export const strictOrdering: DriverGate = capability("ordering: 'strict'", (c) => c.ordering === 'strict')
export const groups: DriverGate = capability('groups', (c) => c.groups)
export const noGroups: DriverGate = capability('groups: false', (c) => !c.groups)
export const push: DriverGate = capability('push', (c) => c.push)
export const noPush: DriverGate = capability('push: false', (c) => !c.push)
export const smallBodies: DriverGate = capability(
  'maxBodyBytes up to 32 MiB',
  (c) => c.maxBodyBytes < largestTestBodyBytes,
)
export const orderedScan: DriverGate = capability("deadScan: not 'leased'", (c) => c.deadScan !== 'leased')
export const durable: DriverGate = capability("durability: not 'memory'", (c) => c.durability !== 'memory')
export const restarts: DriverGate = { text: 'harness.restart', holds: (h) => h.restart !== undefined }
export const kills: DriverGate = { text: 'harness.kill', holds: (h) => h.kill !== undefined }
export const severs: DriverGate = { text: 'harness.sever', holds: (h) => h.sever !== undefined }
export const mismatches: DriverGate = { text: 'harness.createMismatch', holds: (h) => h.createMismatch !== undefined }
