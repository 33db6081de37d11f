import { type Clock, Doorbell } from '../clock.ts'
import type { Delivery, Driver, QueueRef, Receiver } from '../driver.ts'
import { asIdemqError, IdemqError } from '../errors.ts'
import type { Events } from '../events.ts'
import type { Circuit, CircuitState } from '../policy/circuit.ts'
import type { ClaimAnswer } from '../store.ts'
import { Admission } from './admission.ts'
import type { Claim, Claims } from './claims.ts'
import { reach } from './crash-points.ts'
import { Endings } from './endings.ts'
import type { Ending, Entry, Registration } from './entry.ts'
import { Execution, type StartOutcome } from './execution.ts'
import { Holds } from './holds.ts'
import { Lanes } from './lanes.ts'
import { ioPauseMs } from './persist.ts'
import { Quarantine } from './quarantine.ts'
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
  readonly concurrency: number
  readonly prefetch: number
  readonly leaseMs: number
  readonly graceMs: number
  readonly random: () => number
}

const longestBusyPauseMs = 5_000
const shortestBusyPauseMs = 25
const receiveWaitMs = 5_000

/** Works one queue: fetches, claims, runs, ends. */
export class QueueRunner {
  readonly #options: RunnerOptions
  readonly #receiver: Receiver
  readonly #holds: Holds
  readonly #endings: Endings
  readonly #admission: Admission
  readonly #execution: Execution
  readonly #flights: SingleFlight
  readonly #lanes = new Lanes()
  readonly #quarantine: Quarantine
  readonly #bell: Doorbell
  readonly #stopFetching = new AbortController()
  readonly #giveUp: AbortController
  #buffer: Entry[] = []
  #bufferHead = 0
  /** Entries taken from the buffer whose handler has not ended. */
  #active = 0
  #pumping = false
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
    this.#giveUp = new AbortController()
    this.#bell = new Doorbell(clock)
    this.#flights = new SingleFlight(concurrency)
    this.#quarantine = new Quarantine(clock)
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
    this.#execution = new Execution({ ...options, ...own, endings: this.#endings, quarantine: this.#quarantine })
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
    const resumeInMs = Math.max(0, this.#resumeAtMs - this.#options.clock.monotonicMs())
    return { ...this.#execution.counts, resumeInMs }
  }

  start(): void {
    const circuits = new Set([...this.#options.registrations.values()].flatMap(({ job }) => job.circuit ?? []))
    this.#unsubscribe = [...circuits].map((circuit) =>
      circuit.onChange((state) => this.#circuitChanged(circuit, state)),
    )
    this.#fetching = this.#fetchLoop()
  }

  /** Stops fetching, waits `drainMs` for what runs, then aborts it and hands the rest back without using an attempt. */
  async stop(drainMs: number): Promise<void> {
    const { clock, graceMs } = this.#options
    this.#draining = true
    this.#stopFetching.abort()
    this.#cancelResume?.()
    this.#bell.ring()
    await this.#fetching
    await this.#receiver.stop()
    this.#handBackWaiting()
    await this.#idle(clock.monotonicMs() + drainMs)
    this.#execution.abort(new IdemqError('ABORTED', 'the worker is shutting down and the drain time is over'))
    await this.#idle(clock.monotonicMs() + graceMs * 2)
    this.#giveUp.abort()
    this.#holds.stop()
    for (const unsubscribe of this.#unsubscribe) unsubscribe()
    await this.#receiver.close()
  }

  async #idle(untilMs: number): Promise<void> {
    while (this.#holds.size > 0) {
      const seen = this.#bell.armed()
      const leftMs = untilMs - this.#options.clock.monotonicMs()
      if (leftMs <= 0 || this.#holds.size === 0) return
      await this.#bell.wait(leftMs, seen)
    }
  }

  #handBackWaiting(): void {
    const waiting = [...this.#buffer.slice(this.#bufferHead), ...this.#quarantine.drain(), ...this.#lanes.drain()]
    this.#buffer = []
    this.#bufferHead = 0
    for (const entry of waiting) this.#background(entry, this.#defer(entry, 0, 'drain'))
  }

  async #fetchLoop(): Promise<void> {
    const { driver, prefetch, clock } = this.#options
    const signal = this.#stopFetching.signal
    // Small refills would make small batches all the way down: wait until a quarter is free, unless nothing is left.
    const refill = Math.max(1, Math.floor(prefetch / 4))
    for (let failures = 0; !signal.aborted; ) {
      const seen = this.#bell.armed()
      const pauseMs = this.#resumeAtMs - clock.monotonicMs()
      const room = prefetch - this.#holds.size
      if (pauseMs > 0 || room < 1 || (room < refill && this.#bufferHead < this.#buffer.length)) {
        await this.#bell.wait(pauseMs > 0 ? pauseMs : receiveWaitMs, seen, signal)
        continue
      }
      try {
        const max = Math.min(room, driver.capabilities.maxBatch)
        const deliveries = await this.#receiver.receive(max, receiveWaitMs, signal)
        failures = 0
        if (deliveries.length === 0) continue
        for (const delivery of deliveries) this.#holds.add(delivery, noop)
        reach('worker.after_receive', () => deliveries.map((d) => this.#admission.jobIdOf(d)))
        for (const delivery of deliveries) this.#admit(delivery)
        this.#pump()
      } catch (thrown) {
        if (signal.aborted) return
        this.#trouble('receive', asIdemqError(thrown, 'BROKER_UNAVAILABLE', 'receive'))
        await this.#bell.wait(ioPauseMs(failures++), this.#bell.armed(), signal)
      }
    }
  }

  #admit(delivery: Delivery): void {
    const admitted = this.#admission.admit(delivery)
    if ('entry' in admitted) this.#buffer.push(admitted.entry)
    else this.#settleAside(delivery, admitted.aside)
  }

  /** An ending that no slot waits for. */
  #settleAside(delivery: Delivery, ending: Promise<unknown>): void {
    ending.catch((error) => this.#abandon(delivery, error))
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
    this.#holds.drop(delivery)
    this.#trouble('settle', asIdemqError(thrown, 'BROKER_UNAVAILABLE', 'settle'))
  }

  /** Starts what may start: claims in batches, one claim under way at a time; slots freed meanwhile make the next batch. */
  #pump(): void {
    if (this.#pumping) return
    this.#pumping = true
    void this.#pumpLoop()
  }

  async #pumpLoop(): Promise<void> {
    while (!this.#draining) {
      const suspect = this.#active < this.#options.concurrency ? this.#quarantine.take() : undefined
      if (suspect && !this.#mayProbe(suspect)) continue
      const batch = suspect ? [suspect] : this.#take()
      if (batch.length === 0) break
      this.#active += batch.length
      await this.#claim(batch)
    }
    // In the same turn as the last look, or a slot freed in between would go unnoticed.
    this.#pumping = false
  }

  /** Entries that may be claimed now. */
  #take(): Entry[] {
    const { concurrency, clock } = this.#options
    const batch: Entry[] = []
    const holdMs = this.#quarantine.holdMs()
    if (holdMs > 0) {
      clock.schedule(() => this.#pump(), holdMs, true)
      return batch
    }
    while (this.#active + batch.length < concurrency && this.#bufferHead < this.#buffer.length) {
      const entry = this.#buffer[this.#bufferHead]!
      const decision = this.#mayStart(entry)
      if (decision === 'not yet') break
      this.#bufferHead++
      if (decision === 'go') batch.push(entry)
    }
    if (this.#bufferHead > 1_024 && this.#bufferHead * 2 > this.#buffer.length) {
      this.#buffer = this.#buffer.slice(this.#bufferHead)
      this.#bufferHead = 0
    }
    return batch
  }

  /** 'aside': it waits elsewhere or is on its way back. 'not yet': it stays first in the buffer. */
  #mayStart(entry: Entry): 'go' | 'aside' | 'not yet' {
    if (!this.#holds.isHeld(entry.delivery)) {
      this.#holds.drop(entry.delivery)
      this.#leaveLane(entry)
      return 'aside'
    }
    const circuit = this.#enterCircuit(entry)
    if (circuit !== 'go') return circuit
    if (!this.#lanes.enter(entry)) return this.#leaveCircuit(entry, 'neutral')
    const boarded = this.#flights.board(entry)
    if (boarded === 'lead') return 'go'
    if (boarded === 'full') {
      const delayMs = this.#busyPause(entry, longestBusyPauseMs)
      this.#background(entry, this.#defer(entry, delayMs, 'busy'))
    }
    return this.#leaveCircuit(entry, 'neutral')
  }

  #enterCircuit(entry: Entry): 'go' | 'aside' | 'not yet' {
    const { registrations, clock, random } = this.#options
    const { circuit } = entry.registration.job
    if (!circuit || entry.inCircuit) return 'go'
    entry.inCircuit = circuit.tryStart(clock)
    if (entry.inCircuit) return 'go'
    const retryInMs = circuit.retryInMs(clock)
    const circuits = [...registrations.values()].map(({ job }) => job.circuit)
    const waitsMs = circuits.map((c) => c?.retryInMs(clock) ?? 0)
    const covered = waitsMs.every((ms) => ms > 0)
    if (covered && circuits.every((c) => c?.state === 'open')) {
      this.#pause(Math.min(...waitsMs))
      return 'not yet'
    }
    // Recovering, and enough is under way: its end pumps again, or the timer does where it runs elsewhere.
    if (covered && circuit.state !== 'open') {
      clock.schedule(() => this.#pump(), retryInMs, true)
      return 'not yet'
    }
    this.#background(entry, this.#defer(entry, Math.ceil(retryInMs * (1 + random() / 5)), 'circuit_open'))
    return 'aside'
  }

  /** A suspect is held back by its circuit like anybody else. */
  #mayProbe(suspect: Entry): boolean {
    const { clock } = this.#options
    const { circuit } = suspect.registration.job
    suspect.inCircuit = circuit?.tryStart(clock) ?? false
    if (!circuit || suspect.inCircuit) return true
    this.#quarantine.ended(suspect)
    this.#background(suspect, this.#defer(suspect, Math.ceil(circuit.retryInMs(clock)), 'circuit_open'))
    return false
  }

  #circuitChanged(circuit: Circuit, state: CircuitState): void {
    const { events, queue } = this.#options
    const type = ({ open: 'circuit_opened', half_open: 'circuit_half_opened', closed: 'circuit_closed' } as const)[
      state
    ]
    events.emit(type, { queue: queue.name, circuit: circuit.name, state })
    if (state === 'closed') this.#pump()
  }

  #leaveCircuit(entry: Entry, outcome: StartOutcome): 'aside' {
    if (entry.inCircuit) entry.registration.job.circuit?.ended(outcome, this.#options.clock)
    entry.inCircuit = false
    return 'aside'
  }

  /** Nothing of this queue can run: stops taking it from others who might, and hands back what is here. */
  #pause(resumeInMs: number): void {
    const { clock, queue, events } = this.#options
    if (this.#resumeAtMs === 0) events.emit('paused', { queue: queue.name, group: queue.group, resumeInMs })
    this.#resumeAtMs = clock.monotonicMs() + resumeInMs
    this.#cancelResume?.()
    this.#cancelResume = clock.schedule(() => this.#resume(), resumeInMs)
    const waiting = this.#buffer.slice(this.#bufferHead)
    this.#buffer = []
    this.#bufferHead = 0
    for (const entry of waiting) {
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
    const askedAtMs = clock.monotonicMs()
    let answers: ClaimAnswer[]
    try {
      answers = await claims.claim(batch.map((entry) => entry.request))
    } catch (thrown) {
      this.#trouble('claim', asIdemqError(thrown, 'BROKER_UNAVAILABLE', 'claim'))
      for (const entry of batch) {
        this.#endStart(entry, 'neutral')
        this.#background(entry, this.#defer(entry, this.#busyPause(entry, longestBusyPauseMs), 'busy'))
      }
      return
    }
    reach('worker.after_claim', () => batch.map((entry) => entry.envelope.job_id))
    for (let i = 0; i < batch.length; i++) this.#answered(batch[i]!, answers[i]!, askedAtMs)
  }

  #answered(entry: Entry, answer: ClaimAnswer, askedAtMs: number): void {
    const { claims } = this.#options
    if (answer.status === 'claimed') {
      const claim = claims.hold(entry.request, answer, askedAtMs)
      entry.claim = claim
      if (claim.attempt > entry.registration.job.maxAttempts) {
        this.#endStart(entry, 'neutral')
        return this.#background(entry, this.#endings.bury(entry, claim, 'exhausted'))
      }
      if (claim.attempt > entry.envelope.attempt && !entry.suspect) return void this.#isolate(entry, claim)
      return this.#run(entry, claim)
    }
    this.#endStart(entry, 'neutral')
    this.#background(entry, this.#refused(entry, answer))
  }

  #run(entry: Entry, claim: Claim): void {
    let started = true
    const endStart = (outcome: StartOutcome): void => {
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
      case 'stale':
        return this.#endings.deduplicate(entry, answer.status)
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
    this.#endStart(entry, 'neutral')
    try {
      const end = { state: 'released', floor: entry.envelope.attempt, free: true } as const
      await this.#options.claims.end(claim, end, this.#giveUp.signal)
      this.#quarantine.add(entry)
      if (this.#draining) this.#handBackWaiting()
      this.#pump()
    } catch (error) {
      this.#background(entry, Promise.reject(error))
    }
  }

  /** The slot is free again; what remains of the job is bookkeeping. */
  #endStart(entry: Entry, outcome: StartOutcome): void {
    this.#leaveCircuit(entry, outcome)
    this.#quarantine.ended(entry)
    this.#active--
    this.#pump()
  }

  #leaveLane(entry: Entry): void {
    const next = this.#lanes.leave(entry)
    if (next) this.#buffer.push(next)
  }

  /** The entry is settled or on its way back: lets its followers and its lane go on. */
  #landed(entry: Entry, ending: Ending): void {
    for (const follower of this.#flights.land(entry)) this.#follow(follower, entry, ending)
    this.#leaveLane(entry)
    this.#pump()
  }

  #follow(follower: Entry, leader: Entry, ending: Ending): void {
    if (this.#draining) {
      this.#background(follower, this.#defer(follower, 0, 'drain'))
    } else if (ending.type === 'completed' && follower.request.fingerprint === leader.request.fingerprint) {
      this.#background(follower, this.#endings.deduplicate(follower, 'completed'))
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

const noop = (): void => {}
