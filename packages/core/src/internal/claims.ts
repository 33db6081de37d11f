import { type Clock, sleep } from '../clock.ts'
import { asIdemqError, IdemqError } from '../errors.ts'
import type { ClaimAnswer, ClaimEnd, ClaimRef, ClaimRequest, Held, InboxStore, StepRecord, Token } from '../store.ts'
import { Batcher } from './batcher.ts'
import { InHand, type Placed } from './in-hand.ts'
import { callTimeoutMs, ioPauseMs, persist, timed } from './persist.ts'

/** A claim this process holds. A class for the reason of {@link InHand}. */
export class Claim implements ClaimRef, Placed {
  readonly scope: string
  readonly key: string
  readonly token: Token
  /** Starts of the key's series, this one included. */
  readonly attempt: number
  /** Step results by name, JSON; '' is undefined. */
  readonly steps: Map<string, string>
  /** Called once when another owner has, or must be assumed to have, taken over. */
  onLost: () => void = noop
  /** Until when the store is known to keep it for us, on the local monotonic clock. */
  heldUntilMs: number
  /** Its end is on its way: a renewal that finds it gone says nothing. */
  ending = false
  /** Renewal stops here: timeout plus grace. */
  renewUntilMs: number = Number.POSITIVE_INFINITY
  /** Among those that are renewed. */
  place = -1

  constructor({ scope, key }: ClaimRequest, answer: ClaimAnswer & { status: 'claimed' }, heldUntilMs: number) {
    this.scope = scope
    this.key = key
    this.token = answer.token
    this.attempt = answer.attempt
    this.steps = new Map(answer.steps && Object.entries(answer.steps))
    this.heldUntilMs = heldUntilMs
  }
}

const noop = (): void => {}

export interface ClaimsOptions {
  readonly inbox: InboxStore
  readonly clock: Clock
  readonly leaseMs: number
  readonly retentionMs: number
  readonly onTrouble: (operation: string, error: IdemqError) => void
}

const maxStoreBatch = 500

/**
 * All inbox I/O of one worker: batched claims, ends and step records, and the renewal of what is held, in one
 * statement every third of the lease.
 */
export class Claims {
  readonly #options: ClaimsOptions
  readonly #held = new InHand<Claim>()
  readonly #renewals: Batcher<ClaimRef, Held>
  readonly #ends: Batcher<ClaimEnd, Held>
  readonly #records: Batcher<StepRecord, Held>
  /** A tick is scheduled or under way. */
  #ticking = false

  constructor(options: ClaimsOptions) {
    this.#options = options
    const { inbox, leaseMs, retentionMs } = options
    // Late renewals are as bad as none: whoever waits must hear of it within the lease.
    this.#renewals = new Batcher(maxStoreBatch, (refs) =>
      timed(options.clock, leaseMs / 3, undefined, (s) => inbox.renew(refs, leaseMs, s)),
    )
    this.#ends = new Batcher(maxStoreBatch, (ends) => this.#call((s) => inbox.end(ends, retentionMs, s)))
    this.#records = new Batcher(maxStoreBatch, (records) => this.#call((s) => inbox.record(records, s)))
  }

  /** One round trip. Rejects with a retryable error when the store cannot answer: nothing is claimed for certain then. */
  claim(batch: readonly ClaimRequest[]): Promise<ClaimAnswer[]> {
    const { inbox, leaseMs, retentionMs } = this.#options
    return this.#call((signal) => inbox.claim(batch, { leaseMs, retentionMs }, signal))
  }

  /** Registers an answer 'claimed' for renewal. `askedAtMs` is the monotonic instant before the claim was sent. */
  hold(request: ClaimRequest, answer: ClaimAnswer & { status: 'claimed' }, askedAtMs: number): Claim {
    const claim = new Claim(request, answer, askedAtMs + this.#options.leaseMs)
    this.#held.add(claim)
    this.#scheduleTick()
    return claim
  }

  /** Asks the store whether the claim still holds, and extends it: the fence before a copy is sent. */
  async stillHeld(claim: Claim, signal: AbortSignal): Promise<boolean> {
    const askedAtMs = this.#options.clock.monotonicMs()
    const held = await this.#persist('renew a claim', signal, () => this.#renewals.add(refOf(claim)))
    if (held === 'held') claim.heldUntilMs = askedAtMs + this.#options.leaseMs
    else this.#lose(claim)
    return held === 'held'
  }

  /** Ends the claim; tries until the store answers. False if another owner has it. */
  async end(
    claim: Claim,
    end: { state: ClaimEnd['state']; floor: number; free: boolean; holdMs?: number; result?: string },
    signal: AbortSignal,
  ): Promise<boolean> {
    claim.ending = true
    // After a lost answer the repeat finds the token ended: that reads as lost, and the delivery comes back to be deduplicated.
    const held = await this.#persist('end a claim', signal, () =>
      this.#ends.add({ ...refOf(claim), holdMs: 0, ...end }),
    )
    if (held === 'held') this.forget(claim)
    else this.#lose(claim)
    return held === 'held'
  }

  /** Records a step's result. False if another owner has the claim. */
  async record(claim: Claim, step: string, result: string, signal: AbortSignal): Promise<boolean> {
    const held = await this.#persist('record a step', signal, () =>
      this.#records.add({ ...refOf(claim), step, result }),
    )
    if (held === 'held') claim.steps.set(step, result)
    else this.#lose(claim)
    return held === 'held'
  }

  /**
   * Runs `effect` in the store's transaction, which ends the claim as completed with its last statement. `onCommit` is
   * called once that is certain.
   * @throws what `effect` throws; IdemqError CLAIM_LOST, COMMIT_UNKNOWN, or what the store says: rolled back
   */
  async transact(
    claim: Claim,
    effect: (tx: unknown) => Promise<unknown>,
    resultOf: (value: unknown) => string | undefined,
    signal: AbortSignal,
    onCommit: () => void,
  ): Promise<unknown> {
    const { inbox, retentionMs, clock, onTrouble } = this.#options
    let called = false
    const call = (tx: unknown): Promise<unknown> => {
      called = true
      return effect(tx)
    }
    const endOf = (value: unknown): ClaimEnd => {
      claim.ending = true
      const result = resultOf(value)
      const end = { ...refOf(claim), state: 'completed', floor: claim.attempt, free: false, holdMs: 0 } as const
      return result === undefined ? end : { ...end, result }
    }
    let done: Awaited<ReturnType<NonNullable<InboxStore['transact']>>> | undefined
    for (let failures = 0; !done; failures++) {
      try {
        done = await inbox.transact!(call, endOf, retentionMs, signal)
      } catch (thrown) {
        claim.ending = false
        // One that could not begin has done nothing: it is tried again for as long as the job may run.
        const mayRepeat = !called && thrown instanceof IdemqError && thrown.retryable && !signal.aborted
        if (!mayRepeat) throw thrown
        onTrouble('begin a transaction', thrown)
        await sleep(clock, ioPauseMs(failures), signal)
      }
    }
    if (done.status === 'lost') {
      this.#lose(claim)
      throw new IdemqError('CLAIM_LOST', `${claim.scope} ${claim.key}: another worker took over; rolled back`)
    }
    this.forget(claim)
    onCommit()
    return done.value
  }

  /** Stops renewing: it ended some other way, or is left to lapse. */
  forget(claim: Claim): void {
    this.#held.delete(claim)
  }

  #lose(claim: Claim): void {
    if (!this.#held.has(claim)) return
    this.forget(claim)
    claim.onLost()
  }

  #scheduleTick(): void {
    if (this.#ticking) return
    this.#ticking = true
    this.#options.clock.schedule(() => void this.#tick(), this.#options.leaseMs / 3, true)
  }

  async #tick(): Promise<void> {
    const { clock, leaseMs, onTrouble } = this.#options
    const nowMs = clock.monotonicMs()
    for (const claim of this.#held.all()) if (claim.renewUntilMs <= nowMs) this.#held.delete(claim)
    const due = this.#held.all().filter((claim) => claim.heldUntilMs - nowMs < (leaseMs * 3) / 4)
    try {
      const answers = await Promise.all(due.map((claim) => this.#renewals.add(refOf(claim))))
      due.forEach((claim, i) => {
        if (answers[i] === 'held') claim.heldUntilMs = nowMs + leaseMs
        else if (!claim.ending) this.#lose(claim)
      })
    } catch (error) {
      onTrouble('renew claims', asIdemqError(error, 'BROKER_UNAVAILABLE', 'renew claims'))
    }
    // A store that cannot be asked decides nothing, but past the lease another worker may have started: stop ours.
    for (const claim of this.#held.all()) {
      if (claim.heldUntilMs <= clock.monotonicMs() && !claim.ending) this.#lose(claim)
    }
    this.#ticking = false
    if (this.#held.size > 0) this.#scheduleTick()
  }

  #call<T>(run: (signal: AbortSignal) => Promise<T>): Promise<T> {
    return timed(this.#options.clock, callTimeoutMs, undefined, run)
  }

  #persist<T>(operation: string, signal: AbortSignal, run: () => Promise<T>): Promise<T> {
    const { clock, onTrouble } = this.#options
    return persist(run, { clock, signal, operation, onTrouble: (error) => onTrouble(operation, error) })
  }
}

function refOf(claim: Claim): ClaimRef {
  return { scope: claim.scope, key: claim.key, token: claim.token }
}
