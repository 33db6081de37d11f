import { type Clock, Doorbell, sleep } from '../clock.ts'
import type { Delivery, Driver, QueueRef, Receiver } from '../driver.ts'
import { timeMs } from '../envelope.ts'
import { asIdemqError, IdemqError } from '../errors.ts'
import type { Events } from '../events.ts'
import type { CircuitOutcome } from '../policy/circuit.ts'
import type { ClaimAnswer } from '../store.ts'
import { Admission } from './admission.ts'
import { CircuitGate } from './circuit-gate.ts'
import type { Claim, Claims } from './claims.ts'
import { reach } from './crash-points.ts'
import { Endings } from './endings.ts'
import type { Ending, Entry, Registration } from './entry.ts'
import { Execution } from './execution.ts'
import { Holds } from './holds.ts'
import { Lanes } from './lanes.ts'
import { ioPauseMs, persist, timed } from './persist.ts'
import type { Quarantine } from './quarantine.ts'
import type { Sender } from './sender.ts'
import { SingleFlight } from './single-flight.ts'

export interface RunnerOptions {
  readonly driver: Driver
  readonly queue: QueueRef
  /** By job name. */
  readonly registrations: ReadonlyMap<string, Registration>
  readonly claims: Claims
  /** No inbox: the broker's count is the attempt, and losing a delivery is losing the job. */
  readonly unclaimed: boolean
  readonly sender: Sender
  readonly events: Events
  readonly clock: Clock
  /** Shared by every queue of the client. */
  readonly quarantine: Quarantine
  readonly concurrency: number
  readonly prefetch: number
  readonly leaseMs: number
  readonly graceMs: number
  readonly random: () => number
}

const longestBusyPauseMs = 5_000
const shortestBusyPauseMs = 25
const receiveWaitMs = 5_000
/** A receive that takes this much longer than it was told is hanging. */
const receivePatienceMs = 10_000

/** Works one queue: fetches, claims, runs, ends. */
export class QueueRunner {
  readonly #options: RunnerOptions
  readonly #receiver: Receiver
  readonly #holds: Holds
  readonly #endings: Endings
  readonly #admission: Admission
  readonly #execution: Execution
  readonly #gate: CircuitGate
  readonly #flights: SingleFlight
  readonly #lanes = new Lanes()
  readonly #bell: Doorbell
  readonly #stopFetching = new AbortController()
  readonly #giveUp = new AbortController()
  #buffer: Entry[] = []
  #bufferHead = 0
  /** Deliveries taken and not yet ended. */
  #inHand = 0
  /** Entries taken from the buffer whose handler has not ended. */
  #active = 0
  #pumping = false
  #cancelPumpLater: (() => void) | undefined
  #resumeAtMs = 0
  #cancelResume: (() => void) | undefined
  #draining = false
  #fetching: Promise<void> | undefined
  #unsubscribe: (() => void)[] = []

  static async open(options: RunnerOptions, signal: AbortSignal): Promise<QueueRunner> {
    const { driver, queue, prefetch, leaseMs } = options
    let runner: QueueRunner | undefined
    const onLost = (deliveries: readonly Delivery[]): void => runner?.lost(deliveries)
    const receiver = await driver.open(queue, { maxUnsettled: prefetch, leaseMs, onLost }, signal)
    runner = new QueueRunner(options, receiver)
    return runner
  }

  private constructor(options: RunnerOptions, receiver: Receiver) {
    this.#options = options
    this.#receiver = receiver
    const { driver, clock, leaseMs, concurrency } = options
    this.#bell = new Doorbell(clock)
    this.#flights = new SingleFlight(concurrency)
    this.#gate = new CircuitGate(options)
    this.#holds = new Holds({
      receiver,
      capabilities: driver.capabilities,
      clock,
      leaseMs,
      onTrouble: (operation, error) => this.#trouble(operation, error),
      onRoom: () => this.#bell.ring(),
    })
    const own = { holds: this.#holds, giveUp: this.#giveUp.signal }
    this.#endings = new Endings({ ...options, ...own })
    this.#admission = new Admission({ ...options, endings: this.#endings })
    this.#execution = new Execution({ ...options, ...own, endings: this.#endings })
  }

  get receiver(): Receiver {
    return this.#receiver
  }

  get queueName(): string {
    return this.#options.queue.name
  }

  /** The driver learned by itself that deliveries are gone. */
  lost(deliveries: readonly Delivery[]): void {
    this.#holds.lost(deliveries)
  }

  /** For `mq.status`. */
  get snapshot(): { running: number; starts: number; retries: number; resumeInMs: number } {
    return { ...this.#execution.counts, resumeInMs: this.#pausedMs() }
  }

  start(): void {
    this.#unsubscribe = [
      this.#gate.subscribe(() => this.#pump()),
      this.#options.quarantine.onChange(() => this.#pump()),
    ]
    this.#fetching = this.#fetchLoop()
  }

  /** Stops fetching, waits `drainMs` for what runs, then aborts it and hands the rest back without using an attempt. */
  async stop(drainMs: number): Promise<void> {
    const { clock, graceMs } = this.#options
    this.#draining = true
    this.#stopFetching.abort()
    this.#cancelResume?.()
    this.#cancelPumpLater?.()
    this.#bell.ring()
    await this.#fetching
    try {
      await this.#receiver.stop()
      this.#handBackWaiting()
      await this.#idle(clock.monotonicMs() + drainMs)
      this.#execution.abort(new IdemqError('ABORTED', 'the worker is shutting down and the drain time is over'))
      await this.#idle(clock.monotonicMs() + graceMs * 2)
    } finally {
      this.#giveUp.abort()
      this.#holds.stop()
      for (const unsubscribe of this.#unsubscribe) unsubscribe()
      await this.#receiver.close()
    }
  }

  async #idle(untilMs: number): Promise<void> {
    for (;;) {
      const seen = this.#bell.armed()
      const leftMs = untilMs - this.#options.clock.monotonicMs()
      if (this.#inHand === 0 || leftMs <= 0) return
      await this.#bell.wait(leftMs, seen)
    }
  }

  #handBackWaiting(): void {
    const waiting = [...this.#takeBuffer(), ...this.#options.quarantine.drain(this), ...this.#lanes.drain()]
    for (const entry of waiting) this.#background(entry, this.#defer(entry, 0, 'drain'))
  }

  #takeBuffer(): Entry[] {
    const waiting = this.#buffer.slice(this.#bufferHead)
    this.#buffer = []
    this.#bufferHead = 0
    return waiting
  }

  async #fetchLoop(): Promise<void> {
    const { driver, prefetch, clock } = this.#options
    const signal = this.#stopFetching.signal
    // Small refills would make small batches all the way down: wait until a quarter is free, unless nothing is left.
    const refill = Math.max(1, Math.floor(prefetch / 4))
    for (let failures = 0; !signal.aborted; ) {
      const seen = this.#bell.armed()
      const pausedMs = this.#pausedMs()
      const room = prefetch - this.#holds.size
      if (pausedMs > 0 || room < 1 || (room < refill && this.#bufferHead < this.#buffer.length)) {
        await this.#bell.wait(pausedMs > 0 ? pausedMs : receiveWaitMs, seen, signal)
        continue
      }
      try {
        const max = Math.min(room, driver.capabilities.maxBatch)
        const askedAtMs = clock.monotonicMs()
        const deliveries = await timed(clock, receiveWaitMs + receivePatienceMs, signal, (s) =>
          this.#receiver.receive(max, receiveWaitMs, s),
        )
        failures = 0
        if (deliveries.length === 0) {
          // Nothing, and that at once: whatever the reason, asking again at once would spin.
          if (clock.monotonicMs() - askedAtMs < 1) await sleep(clock, ioPauseMs(0), signal)
          continue
        }
        for (const delivery of deliveries) this.#holds.add(delivery, noop)
        reach('worker.after_receive', () => deliveries.map((d) => this.#admission.jobIdOf(d)))
        for (const delivery of deliveries) this.#admit(delivery)
        this.#pump()
      } catch (thrown) {
        if (signal.aborted) return
        this.#trouble('receive', asIdemqError(thrown, 'BROKER_UNAVAILABLE', 'receive'))
        await sleep(clock, ioPauseMs(failures++), signal)
      }
    }
  }

  #admit(delivery: Delivery): void {
    this.#inHand++
    const admitted = this.#admission.admit(delivery)
    if ('entry' in admitted) this.#buffer.push(admitted.entry)
    else {
      admitted.aside.catch((error) => this.#abandon(delivery, error)).then(() => this.#out())
    }
  }

  /** One delivery less in hand. */
  #out(): void {
    this.#inHand--
    this.#bell.ring()
  }

  #background(entry: Entry, ending: Promise<Ending>): void {
    ending.then(
      (end) => this.#landed(entry, end),
      (error) => {
        // Renewed no longer, the claim lapses and the job can be claimed again when it comes back.
        if (entry.claim) this.#options.claims.forget(entry.claim)
        this.#abandon(entry.delivery, error)
        this.#landed(entry, { type: 'again', delayMs: longestBusyPauseMs })
      },
    )
  }

  /** The broker or the store could not be told. Nothing is lost: the delivery comes back when its hold ends. */
  #abandon(delivery: Delivery, thrown: unknown): void {
    this.#trouble('settle', asIdemqError(thrown, 'BROKER_UNAVAILABLE', 'settle'))
    const { returnsBy, freeRelease } = this.#options.driver.capabilities
    // A lease ends by itself. What a connection or an assignment holds must be given back, or it stays with us.
    if (returnsBy !== 'lease' && freeRelease) void this.#holds.settle(delivery, 'release', this.#giveUp.signal)
    else this.#holds.drop(delivery)
  }

  /** Starts what may start: claims in batches, one claim under way at a time; slots freed meanwhile make the next batch. */
  #pump(): void {
    if (this.#pumping) return
    this.#pumping = true
    void this.#pumpLoop()
  }

  #pumpLater(delayMs: number): void {
    this.#cancelPumpLater?.()
    this.#cancelPumpLater = this.#options.clock.schedule(() => this.#pump(), delayMs, true)
  }

  async #pumpLoop(): Promise<void> {
    while (!this.#draining) {
      const batch = this.#take()
      if (batch.length === 0) break
      this.#active += batch.length
      await this.#claim(batch)
    }
    // In the same turn as the last look, or a slot freed in between would go unnoticed.
    this.#pumping = false
  }

  /** Entries that may be claimed now. */
  #take(): Entry[] {
    const { concurrency, quarantine } = this.#options
    if (this.#active >= concurrency || this.#pausedMs() > 0) return []
    const suspect = quarantine.take(this)
    if (suspect) return this.#throughGate(suspect) === 'go' ? [suspect] : []
    const batch: Entry[] = []
    const holdMs = quarantine.holdMs()
    if (holdMs > 0) this.#pumpLater(holdMs)
    while (holdMs === 0 && this.#active + batch.length < concurrency && this.#bufferHead < this.#buffer.length) {
      const entry = this.#buffer[this.#bufferHead]!
      const decision = this.#mayStart(entry)
      if (decision === 'not yet') break
      this.#bufferHead++
      if (decision === 'go') batch.push(entry)
    }
    if (this.#bufferHead === this.#buffer.length) {
      this.#takeBuffer()
      // The fetch loop may wait for room only because something was left here.
      if (batch.length > 0) this.#bell.ring()
    } else if (this.#bufferHead > 1_024) this.#buffer = this.#takeBuffer()
    return batch
  }

  /** 'aside': it waits elsewhere or is on its way back. 'not yet': it stays first in the buffer. */
  #mayStart(entry: Entry): 'go' | 'aside' | 'not yet' {
    if (!this.#holds.isHeld(entry.delivery)) {
      this.#holds.drop(entry.delivery)
      this.#landed(entry, { type: 'again', delayMs: 0 })
      return 'aside'
    }
    const gate = this.#throughGate(entry)
    if (gate !== 'go') return gate
    if (this.#lanes.enter(entry)) {
      const boarded = this.#flights.board(entry)
      if (boarded === 'lead') return 'go'
      if (boarded === 'full') {
        this.#background(entry, this.#defer(entry, this.#busyPause(entry, longestBusyPauseMs), 'busy'))
      }
    }
    this.#gate.leave(entry, 'neutral')
    return 'aside'
  }

  #throughGate(entry: Entry): 'go' | 'aside' | 'not yet' {
    const answer = this.#gate.enter(entry)
    if (answer.type === 'go') return 'go'
    if (answer.type === 'pause') this.#pause(answer.ms)
    // Enough is under way: its end pumps again, or this does where it runs elsewhere.
    else if (answer.type === 'wait') this.#pumpLater(answer.ms)
    // A suspect is not in the buffer, so it can neither stay there nor have been handed back from there by the pause.
    if (answer.type !== 'defer' && !entry.suspect) return 'not yet'
    this.#background(entry, this.#defer(entry, Math.ceil(answer.ms), 'circuit_open'))
    return 'aside'
  }

  #pausedMs(): number {
    return Math.max(0, this.#resumeAtMs - this.#options.clock.monotonicMs())
  }

  /** Nothing of this queue can run: stops taking it from others who might, and hands back what is here. */
  #pause(resumeInMs: number): void {
    const { clock, queue, events } = this.#options
    if (this.#resumeAtMs === 0) events.emit('paused', { queue: queue.name, group: queue.group, resumeInMs })
    this.#resumeAtMs = clock.monotonicMs() + resumeInMs
    this.#cancelResume?.()
    this.#cancelResume = clock.schedule(() => this.#resume(), resumeInMs)
    for (const entry of this.#takeBuffer()) {
      const delayMs = Math.max(resumeInMs, entry.registration.job.circuit?.retryInMs(clock) ?? 0)
      this.#background(entry, this.#defer(entry, Math.ceil(delayMs), 'circuit_open'))
    }
  }

  #resume(): void {
    const { queue, events } = this.#options
    this.#resumeAtMs = 0
    events.emit('resumed', { queue: queue.name, group: queue.group })
    this.#bell.ring()
    this.#pump()
  }

  #defer(entry: Entry, delayMs: number, reason: 'busy' | 'circuit_open' | 'drain'): Promise<Ending> {
    return this.#endings.defer(entry.delivery, entry.envelope, delayMs, reason)
  }

  /** Doubles with every deferral, never beyond what the claim in the way may last. */
  #busyPause(entry: Entry, retryAfterMs: number): number {
    const capMs = Math.min(longestBusyPauseMs, retryAfterMs, 50 * 2 ** Math.min(entry.envelope.hop ?? 0, 10))
    return Math.ceil(Math.max(shortestBusyPauseMs, capMs * (0.5 + this.#options.random() / 2)))
  }

  async #claim(batch: readonly Entry[]): Promise<void> {
    const { claims, clock } = this.#options
    const requests = batch.map((entry) => entry.request)
    let askedAtMs = 0
    let answers: ClaimAnswer[]
    try {
      // Nothing else can start either, so an inbox that is away is waited for: giving the jobs back would only churn.
      answers = await persist(
        () => {
          askedAtMs = clock.monotonicMs()
          return claims.claim(requests)
        },
        {
          clock,
          signal: this.#stopFetching.signal,
          operation: 'claim',
          onTrouble: (error) => this.#trouble('claim', error),
        },
      )
    } catch (thrown) {
      this.#trouble('claim', asIdemqError(thrown, 'BROKER_UNAVAILABLE', 'claim'))
      for (const entry of batch) {
        this.#endStart(entry, 'neutral')
        const delayMs = this.#draining ? 0 : this.#busyPause(entry, longestBusyPauseMs)
        this.#background(entry, this.#defer(entry, delayMs, this.#draining ? 'drain' : 'busy'))
      }
      return
    }
    reach('worker.after_claim', () => batch.map((entry) => entry.envelope.job_id))
    for (let i = 0; i < batch.length; i++) this.#answered(batch[i]!, answers[i]!, askedAtMs)
  }

  #answered(entry: Entry, answer: ClaimAnswer, askedAtMs: number): void {
    const { claims, clock, unclaimed } = this.#options
    if (answer.status !== 'claimed') {
      this.#endStart(entry, 'neutral')
      return this.#background(entry, this.#refused(entry, answer))
    }
    const claim = claims.hold(entry.request, answer, askedAtMs)
    entry.claim = claim
    const crashed = answer.crashed || (unclaimed && claim.attempt > entry.envelope.attempt)
    const { expires_at } = entry.envelope
    if (this.#draining) {
      this.#endStart(entry, 'neutral')
      this.#background(entry, this.#endings.comeBack(entry, claim, 0, 'drain'))
    } else if (claim.attempt > entry.registration.job.maxAttempts) {
      this.#endStart(entry, 'neutral')
      this.#background(entry, this.#endings.bury(entry, claim, 'exhausted', crashed ? new Crashed() : undefined))
    } else if (expires_at && timeMs(expires_at) <= clock.now()) {
      this.#endStart(entry, 'neutral')
      this.#background(entry, this.#endings.bury(entry, claim, 'expired'))
    } else if (crashed && !entry.suspect) {
      void this.#isolate(entry, claim)
    } else this.#run(entry, claim)
  }

  #run(entry: Entry, claim: Claim): void {
    let started = true
    const endStart = (outcome: CircuitOutcome): void => {
      if (started) this.#endStart(entry, outcome)
      started = false
    }
    const ending = this.#execution.run(entry, claim, endStart)
    // Whatever threw on the way, the slot is free again.
    ending.catch(() => endStart('neutral'))
    this.#background(entry, ending)
  }

  #refused(entry: Entry, answer: Exclude<ClaimAnswer, { status: 'claimed' }>): Promise<Ending> {
    switch (answer.status) {
      case 'completed':
        return this.#endings.deduplicate(entry, 'completed', answer.result)
      case 'stale':
        return this.#endings.deduplicate(entry, 'stale')
      case 'busy':
        return this.#defer(entry, this.#busyPause(entry, answer.retryAfterMs), 'busy')
      case 'mismatch':
        return this.#endings
          .buryUnclaimed(entry.delivery, entry.envelope, 'key_mismatch')
          .then((): Ending => ({ type: 'over' }))
    }
  }

  /** An earlier start was lost in a crash: gives this one back and waits to run alone. */
  async #isolate(entry: Entry, claim: Claim): Promise<void> {
    const { claims, quarantine } = this.#options
    try {
      const end = { state: 'released', floor: entry.envelope.attempt, free: true } as const
      await claims.end(claim, end, this.#giveUp.signal)
      entry.claim = undefined
      quarantine.add(entry, this)
      this.#endStart(entry, 'neutral')
      if (this.#draining) this.#handBackWaiting()
    } catch (error) {
      this.#endStart(entry, 'neutral')
      this.#background(entry, Promise.reject(error))
    }
  }

  /** The slot is free again; what remains of the job is bookkeeping. */
  #endStart(entry: Entry, outcome: CircuitOutcome): void {
    this.#gate.leave(entry, outcome)
    this.#active--
    this.#pump()
  }

  #leaveLane(entry: Entry): void {
    const next = this.#lanes.leave(entry)
    if (next) this.#buffer.push(next)
  }

  /** The entry is settled or on its way back: lets its followers and its lane go on. */
  #landed(entry: Entry, ending: Ending): void {
    this.#options.quarantine.ended(entry)
    for (const follower of this.#flights.land(entry)) this.#follow(follower, entry, ending)
    this.#leaveLane(entry)
    this.#out()
    this.#pump()
  }

  #follow(follower: Entry, leader: Entry, ending: Ending): void {
    if (this.#draining) {
      this.#background(follower, this.#defer(follower, 0, 'drain'))
    } else if (ending.type === 'completed' && follower.request.fingerprint === leader.request.fingerprint) {
      this.#background(follower, this.#endings.deduplicate(follower, 'completed', ending.result))
    } else if (ending.type === 'again' && follower.request.jobId !== leader.request.jobId) {
      this.#background(follower, this.#defer(follower, Math.max(shortestBusyPauseMs, ending.delayMs), 'busy'))
    } else {
      // It asks the inbox for itself: the answer will be stale, mismatch, or a claim of its own.
      this.#buffer.push(follower)
    }
  }

  #trouble(operation: string, error: IdemqError): void {
    this.#options.events.emit('trouble', { queue: this.#options.queue.name, operation, error })
  }
}

/** Why a job that was dead-lettered unstarted failed the last time. */
class Crashed extends Error {
  override readonly name = 'Crashed'
  constructor() {
    super('the process that ran the last attempt ended without a word')
  }
}

const noop = (): void => {}
