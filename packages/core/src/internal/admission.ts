import type { Clock } from '../clock.ts'
import type { Codec, Delivery, Driver, QueueRef } from '../driver.ts'
import { type Envelope, timeMs, wireTime } from '../envelope.ts'
import { IdemqError } from '../errors.ts'
import { byJobId } from '../job.ts'
import type { ClaimRequest } from '../store.ts'
import { codecOf } from './codec.ts'
import type { Endings } from './endings.ts'
import { Entry, type Registration } from './entry.ts'

export interface AdmissionOptions {
  readonly driver: Driver
  readonly queue: QueueRef
  /** By job name. */
  readonly registrations: ReadonlyMap<string, Registration>
  /** No inbox: the broker's count is the attempt. */
  readonly unclaimed: boolean
  readonly clock: Clock
  readonly endings: Endings
}

/** A delivery that is to be run, or one that ends without: `aside` resolves when it has. */
export type Admitted = { readonly entry: Entry } | { readonly aside: Promise<unknown> }

/** A delivery that comes back this often without ever being claimed is dead-lettered: a backstop, not a policy. */
const deliveryLimit = 1_000
/** A job nobody knows is kept this long after it was first seen: a rolling deploy may still bring its handler. */
const unknownJobPatienceMs = 15 * 60_000
const longestUnknownPauseMs = 60_000

/** Reads deliveries and sorts out what is not to be run here and now. */
export class Admission {
  readonly #options: AdmissionOptions
  readonly #codec: Codec

  constructor(options: AdmissionOptions) {
    this.#options = options
    this.#codec = codecOf(options.driver)
  }

  admit(delivery: Delivery): Admitted {
    const { registrations, clock, endings } = this.#options
    let envelope: Envelope
    try {
      envelope = this.#codec.decode(delivery.body)
    } catch (thrown) {
      const unread = thrown instanceof IdemqError && thrown.code === 'UNSUPPORTED_VERSION'
      return { aside: endings.buryRaw(delivery, unread ? 'unsupported_version' : 'malformed') }
    }
    const nowMs = clock.now()
    const dueInMs = envelope.not_before ? timeMs(envelope.not_before) - nowMs : 0
    if (dueInMs > 0) return { aside: endings.defer(delivery, envelope, dueInMs, 'not_due') }
    const registration = registrations.get(envelope.name)
    if (!registration) return { aside: this.#unknown(delivery, envelope, nowMs) }
    if ((delivery.priorDeliveries ?? 0) >= deliveryLimit) {
      return { aside: endings.buryUnclaimed(delivery, envelope, 'delivery_limit') }
    }
    let fingerprint: string
    try {
      // A key that is the job's own id can only meet copies of the same job.
      const unique = registration.job.idempotencyKey === byJobId && envelope.idempotency_key === envelope.job_id
      fingerprint = unique ? '' : registration.job.fingerprint(envelope.payload)
    } catch {
      // It reads fields of a payload that no schema has seen yet.
      return { aside: endings.buryUnclaimed(delivery, envelope, 'invalid_payload') }
    }
    return { entry: this.#entry(delivery, envelope, registration, fingerprint) }
  }

  /** For crash points. */
  jobIdOf(delivery: Delivery): string {
    try {
      return this.#codec.decode(delivery.body).job_id
    } catch {
      return 'raw'
    }
  }

  #entry(delivery: Delivery, envelope: Envelope, registration: Registration, fingerprint: string): Entry {
    const { queue, unclaimed } = this.#options
    const scope = `${queue.group}/${envelope.name}`
    const counted = unclaimed ? (delivery.priorDeliveries ?? 0) : 0
    const request: ClaimRequest = {
      scope,
      key: envelope.idempotency_key,
      fingerprint,
      jobId: envelope.job_id,
      replay: envelope.replay,
      attempt: envelope.attempt + counted,
    }
    return new Entry(delivery, envelope, registration, request, `${scope}\0${envelope.idempotency_key}`)
  }

  #unknown(delivery: Delivery, envelope: Envelope, nowMs: number): Promise<unknown> {
    const { endings } = this.#options
    // No inbox knows the job either, so nothing but its age is left to judge by.
    if (envelope.expires_at && timeMs(envelope.expires_at) <= nowMs) {
      return endings.buryUnclaimed(delivery, envelope, 'expired')
    }
    const since = envelope.unknown_since ?? wireTime(nowMs)
    if (nowMs - timeMs(since) >= unknownJobPatienceMs) return endings.buryUnclaimed(delivery, envelope, 'unknown_job')
    const delayMs = Math.min(longestUnknownPauseMs, 1_000 * 2 ** Math.min(envelope.hop ?? 0, 6))
    return endings.defer(delivery, { ...envelope, unknown_since: since }, delayMs, 'unknown_job')
  }
}
