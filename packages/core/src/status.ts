import type { Clock } from './clock.ts'
import type { DeadLetterGroup, DeadLetters } from './dead-letters.ts'
import type { Driver, QueueRef, QueueStats } from './driver.ts'
import { timed } from './internal/persist.ts'
import type { AnyJob } from './job.ts'
import type { CircuitState } from './policy/circuit.ts'
import type { OutboxStats, OutboxStore } from './store.ts'

/** Answers an operator's three questions. Fields a broker cannot tell are absent; ages and times in milliseconds. */
export interface QueueStatus {
  readonly queue: string
  readonly group: string
  /** Where is it stuck? */
  readonly stuck: {
    readonly ready?: number
    readonly delayed?: number
    readonly inFlight?: number
    readonly oldestReadyAgeMs?: number
    readonly oldestInFlightAgeMs?: number
    /** Handlers running in this process. */
    readonly runningHere: number
    /** Jobs committed to the outbox and not yet sent. */
    readonly outbox?: OutboxStats
  }
  /** How many are failing? */
  readonly failing: {
    readonly dead?: number
    /** Dead letters by error, largest first, among the oldest 1,000. */
    readonly groups: readonly DeadLetterGroup[]
    /** Every dead letter was counted; false where there may be more. */
    readonly groupsComplete: boolean
    /** Share of this process's starts that were retries, since it started; absent before the first start. */
    readonly retryRatio?: number
  }
  /** What happens next? */
  readonly next: {
    /** Until the next delayed job or retry is due; absent where none waits or the broker cannot say. */
    readonly nextAttemptInMs?: number
    readonly circuits: readonly { readonly name: string; readonly state: CircuitState; readonly retryInMs: number }[]
    /** Until this process consumes again, where open circuits paused it; 0 = consuming. */
    readonly resumeInMs: number
    /** Where a job goes when its attempts are used up. */
    readonly exhausted: string
  }
}

export interface LocalView {
  readonly runners: readonly { running: number; starts: number; retries: number; resumeInMs: number }[]
  readonly jobs: readonly AnyJob[]
  readonly outbox: OutboxStore | undefined
  readonly declare: 'create' | 'check'
}

const timeoutMs = 10_000
/** Enough to see what is wrong, few enough to be asked for every second. */
const groupedLetters = 1_000

export async function readStatus(
  driver: Driver,
  queue: QueueRef,
  deadLetters: DeadLetters,
  local: LocalView,
  clock: Clock,
  signal?: AbortSignal,
): Promise<QueueStatus> {
  const [stats, groups, outbox] = await Promise.all([
    timed<QueueStats>(clock, timeoutMs, signal, (s) => driver.stats(queue, s)),
    deadLetters.groups({}, { limit: groupedLetters, ...(signal && { signal }) }),
    local.outbox && timed(clock, timeoutMs, signal, (s) => outboxStats(local.outbox!, local.declare, s)),
  ])
  const starts = local.runners.reduce((sum, runner) => sum + runner.starts, 0)
  const retries = local.runners.reduce((sum, runner) => sum + runner.retries, 0)
  const { ready, delayed, inFlight, dead, oldestReadyAgeMs, oldestInFlightAgeMs, nextDueInMs } = stats
  const circuits = new Set(local.jobs.flatMap((job) => job.circuit ?? []))
  return {
    queue: queue.name,
    group: queue.group,
    stuck: {
      ...definedOf({ ready, delayed, inFlight, oldestReadyAgeMs, oldestInFlightAgeMs, outbox }),
      runningHere: local.runners.reduce((sum, runner) => sum + runner.running, 0),
    },
    failing: {
      ...definedOf({ dead, retryRatio: starts > 0 ? retries / starts : undefined }),
      groups,
      groupsComplete: groups.reduce((sum, group) => sum + group.count, 0) < groupedLetters,
    },
    next: {
      ...definedOf({ nextAttemptInMs: nextDueInMs }),
      circuits: [...circuits].map((c) => ({ name: c.name, state: c.state, retryInMs: c.retryInMs(clock) })),
      resumeInMs: Math.max(0, ...local.runners.map((runner) => runner.resumeInMs)),
      exhausted: `dead letters of ${queue.name}${queue.group === 'default' ? '' : ` (${queue.group})`}`,
    },
  }
}

async function outboxStats(
  outbox: OutboxStore,
  declare: 'create' | 'check',
  signal: AbortSignal,
): Promise<OutboxStats> {
  await outbox.prepare(declare, signal)
  return outbox.stats(signal)
}

function definedOf<T extends object>(fields: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]?: Exclude<T[K], undefined>
  }
}
