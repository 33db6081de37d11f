import type { Delivery } from '../driver.ts'
import type { Envelope } from '../envelope.ts'
import type { AnyJob } from '../job.ts'
import type { CircuitPass } from '../policy/circuit.ts'
import type { ClaimRequest } from '../store.ts'
import type { Claim } from './claims.ts'
import type { Placed } from './in-hand.ts'
import type { JobContext } from './job-run.ts'

/** A handler as a worker keeps it. */
export interface Registration {
  readonly job: AnyJob
  readonly handler: (payload: unknown, job: JobContext, tx?: unknown) => unknown
  /** Runs inside the inbox's transaction. */
  readonly transactional: boolean
}

/** A delivery of a job this worker knows, from admission until it is settled. A class for the reason of {@link InHand}. */
export class Entry implements Placed {
  readonly delivery: Delivery
  readonly envelope: Envelope
  readonly registration: Registration
  readonly request: ClaimRequest
  /** Equal for two deliveries that must not run at once in this process. */
  readonly flightKey: string
  /** What it holds at the inbox, from the answer on. */
  claim: Claim | undefined = undefined
  /** A start of it was lost in a crash: runs alone. */
  suspect = false
  /** Its circuit counts it as running. */
  pass: CircuitPass | undefined = undefined
  /** When its handler started, on the local monotonic clock, while it runs. */
  startedAtMs: number | undefined = undefined
  /** Among those that run. */
  place = -1

  constructor(
    delivery: Delivery,
    envelope: Envelope,
    registration: Registration,
    request: ClaimRequest,
    flightKey: string,
  ) {
    this.delivery = delivery
    this.envelope = envelope
    this.registration = registration
    this.request = request
    this.flightKey = flightKey
  }
}

/** How an entry ended, as far as its followers (same key, same process) must know. */
export type Ending =
  | { readonly type: 'completed'; readonly result?: string }
  /** It, or its successor, comes back after `delayMs`. */
  | { readonly type: 'again'; readonly delayMs: number }
  | { readonly type: 'over' }
