import type { Clock } from '../clock.ts'
import type { QueueRef } from '../driver.ts'
import type { Events } from '../events.ts'
import type { Circuit, CircuitOutcome, CircuitState } from '../policy/circuit.ts'
import type { Entry, Registration } from './entry.ts'

export interface CircuitGateOptions {
  readonly registrations: ReadonlyMap<string, Registration>
  readonly queue: QueueRef
  readonly events: Events
  readonly clock: Clock
  readonly random: () => number
}

/**
 * `defer`: this job comes back later, others go on. `wait`: nothing of the queue may start for a moment, it is
 * recovering. `pause`: nothing of the queue can run for a while, stop consuming.
 */
export type GateAnswer = { readonly type: 'go' } | { readonly type: 'defer' | 'wait' | 'pause'; readonly ms: number }

const go: GateAnswer = { type: 'go' }

/** Asks a job's circuit before it starts, and sees whether circuits cover the whole queue. */
export class CircuitGate {
  readonly #options: CircuitGateOptions
  readonly #circuits: readonly (Circuit | undefined)[]

  constructor(options: CircuitGateOptions) {
    this.#options = options
    this.#circuits = [...options.registrations.values()].map(({ job }) => job.circuit)
  }

  /** Reports changes of state as events, and calls back on each; returns what unsubscribes. */
  subscribe(onChange: () => void): () => void {
    const { events, queue } = this.#options
    const unsubscribe = [...new Set(this.#circuits)].map((circuit) =>
      circuit?.onChange((state) => {
        events.emit(eventOf[state], { queue: queue.name, circuit: circuit.name, state })
        onChange()
      }),
    )
    return () => {
      for (const each of unsubscribe) each?.()
    }
  }

  enter(entry: Entry): GateAnswer {
    const { clock, random } = this.#options
    const { circuit } = entry.registration.job
    if (!circuit || entry.pass) return go
    entry.pass = circuit.tryStart(clock)
    if (entry.pass) return go
    const waitsMs = this.#circuits.map((each) => each?.retryInMs(clock) ?? 0)
    const covered = waitsMs.every((ms) => ms > 0)
    if (covered && this.#circuits.every((each) => each?.state === 'open')) {
      return { type: 'pause', ms: Math.min(...waitsMs) }
    }
    const retryInMs = circuit.retryInMs(clock)
    if (covered && circuit.state !== 'open') return { type: 'wait', ms: retryInMs }
    return { type: 'defer', ms: Math.ceil(retryInMs * (1 + random() / 5)) }
  }

  leave(entry: Entry, outcome: CircuitOutcome): void {
    entry.pass?.end(outcome, this.#options.clock)
    entry.pass = undefined
  }
}

const eventOf = {
  open: 'circuit_opened',
  half_open: 'circuit_half_opened',
  closed: 'circuit_closed',
} as const satisfies {
  [S in CircuitState]: string
}
