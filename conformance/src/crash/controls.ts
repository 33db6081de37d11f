/**
 * Negative controls: a kit that cannot fail proves nothing. Each wraps the real adapter and is wrong in one way only;
 * a run with it must count something. `aim` is part of the control: it kills where that wrong shows.
 */
import type { Adapter } from '@idemq/core'
import * as driverControls from './controls-driver.ts'
import * as storeControls from './controls-store.ts'
import type { Mix } from './jobs.ts'
import type { Fault } from './network.ts'
import type { AimTemplate } from './plans.ts'

/** What a run kills and enqueues where that is not everything. */
export interface Aim {
  readonly aim: readonly AimTemplate[]
  /** What is enqueued. @default the mix of a campaign */
  readonly mix?: Mix
  /** Most jobs under way at once. @default that of a campaign */
  readonly maxUnderWay?: number
  /** Claim lease of the workers in milliseconds. @default that of a campaign */
  readonly claimLeaseMs?: number
  /** There is nothing to show without an outbox. @default false */
  readonly needsOutbox?: boolean
}

export interface Control extends Aim {
  /** What is wrong, in one line. */
  readonly wrong: string
  /** @default the adapter as it is */
  readonly wrap?: (adapter: Adapter) => Adapter
  /** The server forgets when it is killed. @default false */
  readonly volatile?: boolean
  /** Without these it would not show. A run with the control has them unless it asks for others. */
  readonly faults?: Faults
}

/** What goes wrong in a run besides its processes. */
export interface Faults {
  /** How often the server is killed. @default 0 */
  readonly brokerKills?: number
  /** The network between the processes and the server goes bad, over and over: in these ways, or in all. @default [] */
  readonly net?: boolean | readonly Fault[]
}

const frozenHandlers: readonly AimTemplate[] = [
  { role: 'worker', kind: 'freeze', point: 'worker.in_handler' },
  { role: 'worker', kind: 'instant' },
  { role: 'producer', kind: 'instant' },
]
const instants: readonly AimTemplate[] = [
  { role: 'worker', kind: 'instant' },
  { role: 'producer', kind: 'instant' },
]

/** Whoever sends lives: what goes wrong does so by the network alone. */
const operatorInstants: readonly AimTemplate[] = [{ role: 'operator', kind: 'instant' }]

export const controls: Readonly<Record<string, Control>> = {
  'ack-first': {
    wrong: 'driver: a delivery is acked as it is received, not when it is settled',
    wrap: driverControls.ackFirst,
    aim: [{ role: 'worker', kind: 'point', point: 'worker.in_handler' }],
  },
  'send-unconfirmed': {
    wrong: 'driver: send answers "stored" 150 ms before it stores',
    wrap: driverControls.sendUnconfirmed,
    aim: [{ role: 'producer', kind: 'point', point: 'enqueue.before_send', hits: [4, 8] }],
  },
  'job-id-dedupe': {
    wrong: 'driver: a retry copy is taken for a duplicate of its job and swallowed',
    wrap: driverControls.jobIdDedupe,
    aim: instants,
    mix: { charge: 1, flaky: 3 },
  },
  'delay-dropped': {
    wrong: 'driver: every delay is taken for none',
    wrap: driverControls.delayDropped,
    aim: instants,
    mix: { charge: 1, delayed: 3 },
  },
  'settle-ignores-owner': {
    wrong: 'driver: extend and settle succeed for whoever asks, long after another owns the delivery',
    wrap: driverControls.settleIgnoresOwner,
    aim: frozenHandlers,
    mix: { charge: 1 },
    // The claim outlives the delivery's lease, so the frozen worker ends its job rightly and settles wrongly.
    claimLeaseMs: 15_000,
  },
  'dead-without-failures': {
    wrong: 'driver: a dead letter is stored without its failures',
    wrap: driverControls.deadWithoutFailures,
    aim: instants,
    mix: { charge: 1, declined: 3 },
  },
  'dead-dropped': {
    wrong: 'driver: sendDead answers "stored" and stores nothing',
    wrap: driverControls.deadDropped,
    aim: instants,
    mix: { charge: 1, declined: 3 },
  },
  'replay-removes-first': {
    wrong: 'driver: dead letters are removed as they are shown, before the visit decides',
    wrap: driverControls.scanRemovesFirst,
    aim: [
      { role: 'operator', kind: 'point', point: 'replay.after_copy' },
      { role: 'worker', kind: 'instant' },
    ],
    mix: { declined: 1 },
  },
  'release-before-copy': {
    wrong: 'worker: the inbox is released, and its floor raised, before the retry copy is sent',
    wrap: driverControls.releaseBeforeCopy,
    aim: [{ role: 'worker', kind: 'point', point: 'worker.after_release', hits: [1, 2] }],
    mix: { charge: 1, flaky: 3 },
  },
  'no-floor': {
    wrong: 'inbox: an end does not raise the floor',
    wrap: storeControls.noFloor,
    aim: [{ role: 'worker', kind: 'point', point: 'worker.after_release', hits: [1, 2] }],
    mix: { charge: 1, patient: 3 },
  },
  'unconditional-complete': {
    wrong: 'inbox: renew, record and end ignore the token and answer "held"',
    wrap: storeControls.tokenIgnored,
    aim: frozenHandlers,
    mix: { charge: 1 },
  },
  'forget-completed': {
    wrong: 'inbox: a completion is kept as a release',
    wrap: storeControls.forgetCompleted,
    aim: [{ role: 'worker', kind: 'point', point: 'worker.after_complete' }],
  },
  'claim-always-granted': {
    wrong: 'inbox: every claim is granted, whoever holds or has completed the key',
    wrap: storeControls.claimAlwaysGranted,
    aim: [{ role: 'worker', kind: 'point', point: 'worker.after_complete' }],
    mix: { charge: 2, 'double-click': 2 },
  },
  'count-never-raised': {
    wrong: 'inbox: a claim answers the attempt of the copy, whatever was used before',
    wrap: storeControls.countNeverRaised,
    aim: [{ role: 'worker', kind: 'point', point: 'worker.in_handler', hits: [1, 1] }],
    mix: { crasher: 1 },
    maxUnderWay: 6,
  },
  'memo-dropped': {
    wrong: 'inbox: record answers "held" and records nothing',
    wrap: storeControls.memoDropped,
    aim: [{ role: 'worker', kind: 'point', point: 'worker.after_memo' }],
  },
  'outbox-marks-first': {
    wrong: 'outbox: rows are marked as sent when a relay claims them',
    wrap: storeControls.outboxMarksFirst,
    needsOutbox: true,
    aim: [
      { role: 'relay', kind: 'edge', edge: 'send.before', hits: [1, 1] },
      { role: 'worker', kind: 'instant' },
    ],
    mix: { reserve: 1 },
  },
  'outbox-ignores-rollback': {
    wrong: 'outbox: an insert is sent whether its transaction commits or rolls back',
    wrap: storeControls.outboxIgnoresRollback,
    needsOutbox: true,
    aim: instants,
    mix: { reserve: 1, booked: 1 },
  },
  'volatile-broker': {
    wrong: 'broker: what it has confirmed is only in the memory of its server',
    volatile: true,
    faults: { brokerKills: 3 },
    aim: instants,
  },
  'unknown-is-stored': {
    wrong: 'driver: what was sent and not answered is taken for stored',
    wrap: driverControls.unknownIsStored,
    faults: { net: ['black_hole'] },
    aim: operatorInstants,
    mix: { charge: 2, flaky: 1, declined: 1 },
  },
}
