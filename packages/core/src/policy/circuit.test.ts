import { expect, it } from 'vitest'
import { ManualClock } from '../clock.ts'
import { type Circuit, type CircuitPass, type CircuitState, circuitBreaker } from './circuit.ts'

interface Probe extends Omit<Circuit, 'tryStart'> {
  /** Ends the oldest start that has not ended. */
  ended(outcome: 'success' | 'failure' | 'neutral', clock: ManualClock): void
}

function newCircuit(): {
  circuit: Probe
  clock: ManualClock
  states: CircuitState[]
  start: (count: number) => number
} {
  const clock = new ManualClock()
  const circuit = circuitBreaker({ name: 'provider', windowCalls: 4, failureRatio: 0.5, cooldownMs: 1_000 })
  const states: CircuitState[] = []
  circuit.onChange((state) => states.push(state))
  const passes: CircuitPass[] = []
  /** Starts as many of `count` as may start now. */
  const start = (count: number): number => {
    for (let started = 0; started < count; started++) {
      const pass = circuit.tryStart(clock)
      if (!pass) return started
      passes.push(pass)
    }
    return count
  }
  const probe: Probe = {
    name: circuit.name,
    get state() {
      return circuit.state
    },
    retryInMs: (now) => circuit.retryInMs(now),
    onChange: (listener) => circuit.onChange(listener),
    ended: (outcome, now) => passes.shift()!.end(outcome, now),
  }
  return { circuit: probe, clock, states, start }
}

it('is closed at first and lets everything through', () => {
  const { circuit, clock, start } = newCircuit()
  expect(circuit.state).toBe('closed')
  expect(circuit.retryInMs(clock)).toBe(0)
  expect(start(1_000)).toBe(1_000)
})

it('opens when more than its share of the window failed, not before', () => {
  const { circuit, clock, states, start } = newCircuit()
  start(8)
  for (const outcome of ['failure', 'success', 'success', 'failure'] as const) circuit.ended(outcome, clock)
  expect(circuit.state).toBe('closed')
  circuit.ended('failure', clock)
  circuit.ended('failure', clock)
  expect(states).toEqual(['open'])
  expect(start(1)).toBe(0)
  expect(circuit.retryInMs(clock)).toBe(1_000)
})

it('does not count what tells nothing about the dependency', () => {
  const { circuit, clock, start } = newCircuit()
  start(100)
  for (let i = 0; i < 100; i++) circuit.ended('neutral', clock)
  expect(circuit.state).toBe('closed')
})

it('after the cooldown lets one probe through, and only one', async () => {
  const { circuit, clock, states, start } = newCircuit()
  start(4)
  for (let i = 0; i < 4; i++) circuit.ended('failure', clock)
  await clock.advance(999)
  expect(start(5)).toBe(0)
  expect(circuit.retryInMs(clock)).toBe(1)
  await clock.advance(1)
  expect(circuit.retryInMs(clock)).toBe(0)
  expect(start(5)).toBe(1)
  expect(circuit.state).toBe('half_open')
  expect(circuit.retryInMs(clock)).toBeGreaterThan(0)
  expect(states).toEqual(['open', 'half_open'])
})

it('closes on a probe that succeeds and ramps up: 2, 4, then no limit', async () => {
  const { circuit, clock, states, start } = newCircuit()
  start(4)
  for (let i = 0; i < 4; i++) circuit.ended('failure', clock)
  await clock.advance(1_000)
  start(1)
  circuit.ended('success', clock)
  expect(states).toEqual(['open', 'half_open', 'closed'])
  expect(start(100)).toBe(2)
  circuit.ended('success', clock)
  expect(start(100)).toBe(3)
  circuit.ended('success', clock)
  expect(start(1_000)).toBe(1_000)
})

it('opens again on a probe that fails, for a whole cooldown', async () => {
  const { circuit, clock, states, start } = newCircuit()
  start(4)
  for (let i = 0; i < 4; i++) circuit.ended('failure', clock)
  await clock.advance(1_000)
  start(1)
  circuit.ended('failure', clock)
  expect(states).toEqual(['open', 'half_open', 'open'])
  expect(circuit.retryInMs(clock)).toBe(1_000)
})

it('opens again on the first failure while it ramps up', async () => {
  const { circuit, clock, states, start } = newCircuit()
  start(4)
  for (let i = 0; i < 4; i++) circuit.ended('failure', clock)
  await clock.advance(1_000)
  start(1)
  circuit.ended('success', clock)
  start(2)
  circuit.ended('failure', clock)
  expect(states.at(-1)).toBe('open')
})

it('gives the place of a probe that told nothing to the next one', async () => {
  const { circuit, clock, start } = newCircuit()
  start(4)
  for (let i = 0; i < 4; i++) circuit.ended('failure', clock)
  await clock.advance(1_000)
  start(1)
  circuit.ended('neutral', clock)
  expect(circuit.state).toBe('half_open')
  expect(start(5)).toBe(1)
})

it('is not closed or reopened by stragglers that started before it opened', async () => {
  const { circuit, clock, states, start } = newCircuit()
  start(6)
  for (let i = 0; i < 4; i++) circuit.ended('failure', clock)
  circuit.ended('success', clock)
  expect(circuit.state).toBe('open')
  circuit.ended('failure', clock)
  await clock.advance(1_000)
  expect(start(5)).toBe(1)
  expect(states).toEqual(['open', 'half_open'])
})

it('tells every listener every change, until it unsubscribes', () => {
  const { circuit, clock, states, start } = newCircuit()
  const other: CircuitState[] = []
  const stop = circuit.onChange((state) => other.push(state))
  stop()
  start(4)
  for (let i = 0; i < 4; i++) circuit.ended('failure', clock)
  expect(states).toEqual(['open'])
  expect(other).toEqual([])
})
