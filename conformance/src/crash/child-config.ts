/** What a parent tells a child process. Travels as JSON in the child's arguments. */
import type { Address } from './brokers.ts'
import type { CrashPayload, KindName, Mix } from './jobs.ts'
import type { Plan, Role } from './plans.ts'

export interface ChildConfig extends Address {
  /** Unique in the run; the `by` of its statements. */
  readonly name: string
  readonly role: Role
  readonly logPath: string
  readonly ledgerPort: number
  readonly seed: number
  readonly mix: Mix
  /** How it is to die. Absent = it lives until it is told to stop. */
  readonly plan?: Plan
  /** Whether jobs that kill their process may. */
  readonly lethal: boolean
  /** Name of the negative control to run with. */
  readonly control?: string
  readonly leaseMs: number
  readonly claimLeaseMs: number
  readonly concurrency: number
  readonly prefetch: number
  /** Producer: enqueue this once, after meeting the others, instead of what the mix draws. */
  readonly burst?: Burst
  /** Operator: one pass over the dead letters, then exit. */
  readonly once?: boolean
}

export interface Burst {
  readonly kind: KindName
  readonly payload: CrashPayload
  readonly count: number
  /** Start when so many producers are ready. */
  readonly parties: number
}

/** How a child ends that found the broker unavailable for now: to be started again (EX_TEMPFAIL of sysexits.h). */
export const unavailableExitCode = 75
