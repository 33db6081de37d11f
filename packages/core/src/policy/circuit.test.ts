import { expect, it } from 'vitest'
import { ManualClock } from '../clock.ts'
import { type Circuit, type CircuitPass, type CircuitState, circuitBreaker } from './circuit.ts'

type Outcome = 'success' | 'failure' | 'neutral'

class Dependency {
  readonly clock: ManualClock = new ManualClock()
  readonly circuit: Circuit = circuitBreaker({ name: 'provider', windowCalls: 4, failureRatio: 0.5, cooldownMs: 1_000 })
  readonly states: CircuitState[] = []
  readonly passes: CircuitPass[] = []

  constructor() {
    this.circuit.onChange((state) => this.states.push(state))
  }

  /** Starts as many of `count` as may start now; returns how many did. */
  start(count: number): number {
    let started = 0
    for (; started < count; started++) {
      const pass = this.circuit.tryStart(this.clock)
      if (!pass) break
      this.passes.push(pass)
    }
    return started
  }

  /** Ends what started first, one for each outcome. */
  end(...outcomes: Outcome[]): void {
    for (const outcome of outcomes) this.passes.shift()!.end(outcome, this.clock)
  }

  /** Opens it. */
  sicken(): void {
    this.start(4)
    this.end('failure', 'failure', 'failure', 'failure')
  }
}

it('is closed at first and lets everything through', () => {
  const dependency = new Dependency()
  expect(dependency.circuit.state).toBe('closed')
  expect(dependency.circuit.retryInMs(dependency.clock)).toBe(0)
  expect(dependency.start(1_000)).toBe(1_000)
})

it('opens when more than its share of the window failed, not before', () => {
  const dependency = new Dependency()
  const { circuit, clock, states } = dependency
  dependency.start(8)
  dependency.end('failure', 'success', 'success', 'failure')
  expect(circuit.state).toBe('closed')
  dependency.end('failure', 'failure')
  expect(states).toEqual(['open'])
  expect(circuit.tryStart(clock)).toBeUndefined()
  expect(circuit.retryInMs(clock)).toBe(1_000)
})

it('does not count what tells nothing about the dependency', () => {
  const dependency = new Dependency()
  dependency.start(100)
  dependency.end(...Array.from({ length: 100 }, () => 'neutral' as const))
  expect(dependency.circuit.state).toBe('closed')
})

it('after the cooldown lets one probe through, and only one', async () => {
  const dependency = new Dependency()
  const { circuit, clock, states } = dependency
  dependency.sicken()
  await clock.advance(999)
  expect(dependency.start(5)).toBe(0)
  expect(circuit.retryInMs(clock)).toBe(1)
  await clock.advance(1)
  expect(circuit.retryInMs(clock)).toBe(0)
  expect(dependency.start(5)).toBe(1)
  expect(circuit.state).toBe('half_open')
  expect(circuit.retryInMs(clock)).toBeGreaterThan(0)
  expect(states).toEqual(['open', 'half_open'])
})

it('closes on a probe that succeeds and ramps up: 2, 4, then no limit', async () => {
  const dependency = new Dependency()
  dependency.sicken()
  await dependency.clock.advance(1_000)
  dependency.start(1)
  dependency.end('success')
  expect(dependency.states).toEqual(['open', 'half_open', 'closed'])
  expect(dependency.start(100)).toBe(2)
  dependency.end('success')
  // One still runs: four at once make three more.
  expect(dependency.start(100)).toBe(3)
  dependency.end('success')
  expect(dependency.start(1_000)).toBe(1_000)
})

it('opens again on a probe that fails, for a whole cooldown', async () => {
  const dependency = new Dependency()
  const { circuit, clock, states } = dependency
  dependency.sicken()
  await clock.advance(1_000)
  dependency.start(1)
  dependency.end('failure')
  expect(states).toEqual(['open', 'half_open', 'open'])
  expect(circuit.retryInMs(clock)).toBe(1_000)
})

it('opens again on the first failure while it ramps up', async () => {
  const dependency = new Dependency()
  dependency.sicken()
  await dependency.clock.advance(1_000)
  dependency.start(1)
  dependency.end('success')
  dependency.start(2)
  dependency.end('failure')
  expect(dependency.states.at(-1)).toBe('open')
})

it('gives the place of a probe that told nothing to the next one', async () => {
  const dependency = new Dependency()
  dependency.sicken()
  await dependency.clock.advance(1_000)
  dependency.start(1)
  dependency.end('neutral')
  expect(dependency.circuit.state).toBe('half_open')
  expect(dependency.start(5)).toBe(1)
})

it('hears nothing from stragglers that started before it opened, and no place is theirs', async () => {
  const dependency = new Dependency()
  const { circuit, clock, states } = dependency
  dependency.start(7)
  dependency.end('failure', 'failure', 'failure', 'failure', 'success')
  expect(circuit.state).toBe('open')
  await clock.advance(1_000)
  const [old, older] = dependency.passes.splice(0)
  expect(dependency.start(5)).toBe(1)
  old!.end('success', clock)
  older!.end('failure', clock)
  expect(states).toEqual(['open', 'half_open'])
  expect(dependency.start(5)).toBe(0)
  dependency.end('success')
  expect(states.at(-1)).toBe('closed')
})

it('tells every listener every change, until it unsubscribes', () => {
  const dependency = new Dependency()
  const other: CircuitState[] = []
  const stop = dependency.circuit.onChange((state) => other.push(state))
  stop()
  dependency.sicken()
  expect(dependency.states).toEqual(['open'])
  expect(other).toEqual([])
})
