/** How cases are written down, gated and handed to whatever test runner is there. */
import { AssertionError } from 'node:assert/strict'

/** The two functions of a test runner (vitest, node:test, mocha, jest …). A case rejects with an AssertionError. */
export interface Runner {
  describe(name: string, body: () => void): unknown
  /** `timeoutMs` is a hint above the case's own limit; runners that ignore it must allow at least a minute. */
  it(name: string, body: () => Promise<void>, timeoutMs?: number): unknown
}

/** Which harnesses a case is for. `text` is what the README's table prints. */
export interface Gate<Harness> {
  readonly text: string
  readonly holds: (harness: Harness) => boolean
}

export interface Case<Harness, Bench> {
  /** The promise under test, as a sentence: a failing run prints it. Unique within its suite. */
  readonly name: string
  /** All must hold. Absent = every harness. */
  readonly gates?: readonly Gate<Harness>[]
  readonly run: (bench: Bench) => Promise<void>
}

export interface CaseGroup<Harness, Bench> {
  readonly name: string
  readonly cases: readonly Case<Harness, Bench>[]
}

/** What a case works with. `dispose` gives back all it opened. */
export interface Disposable {
  dispose(): Promise<void>
}

/** Registers the cases whose gates hold, each with a bench of its own. */
export function registerCases<Harness, Bench extends Disposable>(
  runner: Runner,
  groups: readonly CaseGroup<Harness, Bench>[],
  harness: Harness,
  openBench: () => Bench,
  limitMs: number,
): void {
  for (const group of groups) {
    const cases = group.cases.filter(({ gates = [] }) => gates.every((gate) => gate.holds(harness)))
    if (cases.length === 0) continue
    runner.describe(group.name, () => {
      for (const { name, run } of cases) runner.it(name, () => runCase(run, openBench(), limitMs), limitMs * 2)
    })
  }
}

async function runCase<Bench extends Disposable>(
  run: (bench: Bench) => Promise<void>,
  bench: Bench,
  limitMs: number,
): Promise<void> {
  let failure: { readonly error: unknown } | undefined
  try {
    await within(limitMs, 'the case to end', run(bench))
  } catch (error) {
    failure = { error }
  }
  try {
    await within(limitMs, 'close() to end after the case', bench.dispose())
  } catch (error) {
    failure ??= { error }
  }
  if (failure) throw failure.error
}

/** The outcome of `work`, or a failure that says what was waited for. */
export async function within<T>(limitMs: number, what: string, work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const limit = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new AssertionError({ message: `waited ${limitMs} ms for ${what}` })), limitMs)
  })
  try {
    return await Promise.race([work, limit])
  } finally {
    clearTimeout(timer)
  }
}
