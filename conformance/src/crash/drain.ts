/** The end of a run: nothing is killed or cut off any more, and everything that is under way gets to its end. */
import type { QueueStats } from '@idemq/core'
import type { ChildConfig } from './child-config.ts'
import type { Child } from './child-process.ts'
import type { Role } from './plans.ts'
import type { Run } from './run.ts'

export interface Drained {
  /** What kept it from draining, or went wrong on the way. */
  readonly failures: readonly string[]
}

const pollMs = 100
/** Where the broker cannot count, it is drained once nothing was said for so many leases. */
const quietLeases = 6

/** Lets an operator look at every dead letter once, and workers and a relay run until nothing is left or time is up. */
export async function drain(run: Run, limitMs: number): Promise<Drained> {
  const start = (role: Role, options: Partial<ChildConfig> = {}): Child =>
    run.start(role, { ...options, url: run.directUrl })
  const staff = [start('worker'), start('worker')]
  if (run.adapter.outbox) staff.push(start('relay'))
  const failures: string[] = []
  const untilMs = performance.now() + limitMs
  const operator = await start('operator', { once: true }).exited
  if (!operator.clean) failures.push(`the operator ended with code ${operator.code}: ${operator.stderr}`)

  const left = await untilEmpty(run, untilMs - performance.now())
  if (left !== '') failures.push(`not drained within ${limitMs} ms: ${left}`)
  for (const child of staff) {
    const exit = await child.stop()
    if (!exit.clean) failures.push(`${child.config.name} ended with code ${exit.code}: ${exit.stderr.trim()}`)
  }
  return { failures }
}

/** Resolves with '' once nothing is under way, or with what still is after `limitMs`. */
export async function untilEmpty(run: Run, limitMs: number): Promise<string> {
  const untilMs = performance.now() + limitMs
  // Twice: a row may be between the outbox and the broker when the first look comes.
  for (let empty = 0; ; ) {
    const left = await whatIsLeft(run)
    empty = left === '' ? empty + 1 : 0
    if (empty === 2 || (left !== '' && performance.now() >= untilMs)) return left
    await new Promise((resolve) => setTimeout(resolve, pollMs))
  }
}

/** What is not at its end yet, in words; '' if nothing. */
async function whatIsLeft(run: Run): Promise<string> {
  const pending = await run.outboxPending()
  if (pending > 0) return `${pending} outbox rows`
  const stats = await run.stats()
  const counted = (['ready', 'delayed', 'inFlight'] as const satisfies (keyof QueueStats)[]).filter((name) =>
    run.adapter.driver.capabilities.stats.includes(name),
  )
  const waiting = counted.filter((name) => (stats[name] ?? 0) > 0).map((name) => `${stats[name]} ${name}`)
  if (waiting.length > 0 || counted.length === 3) return waiting.join(', ')
  const quietMs = Date.now() - (run.statements.at(-1)?.atMs ?? 0)
  return quietMs > quietLeases * run.leaseMs ? '' : 'statements keep coming'
}
