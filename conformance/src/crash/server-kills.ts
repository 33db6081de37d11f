/** Kills the server under the processes of a run and starts it again, at instants that the seed spreads over the run. */
import { setTimeout as delay } from 'node:timers/promises'
import type { BrokerServer } from './brokers.ts'
import { seededRandom } from './random.ts'

export interface ServerKillOptions {
  /** Must be there if `count` is not 0. */
  readonly server: BrokerServer | undefined
  readonly count: number
  readonly seed: number
  /** How many processes the run kills in all, and how many it has killed. */
  readonly kills: number
  readonly killed: () => number
  readonly signal: AbortSignal
}

export interface ServerKills {
  done(): number
  isDone(): boolean
  /** More of the run has passed than its share of these: no other kill is to come before the next one. */
  isBehind(): boolean
  /** Resolves when the server is up and will not be killed any more. */
  readonly ended: Promise<void>
}

const pollMs = 10
const longestWaitMs = 400
const longestDeathMs = 600

export function killServer({ server, count, seed, kills, killed, signal }: ServerKillOptions): ServerKills {
  const random = seededRandom(seed, 'server kills')
  // One in each of `count` equal parts of the run, anywhere in it.
  const due = Array.from({ length: count }, (_, i) => Math.floor(((i + random.next()) * kills) / count))
  let done = 0
  const pass = (ms: number): Promise<void> => delay(ms, undefined, { signal }).catch(() => {})
  const proceed = async (): Promise<void> => {
    for (const at of due) {
      while (killed() < at && !signal.aborted) await pass(pollMs)
      await pass(random.integer(0, longestWaitMs))
      if (signal.aborted) return
      await server!.kill()
      done++
      await pass(random.integer(0, longestDeathMs))
      await server!.start()
    }
  }
  return {
    done: () => done,
    isDone: () => done === count,
    isBehind: () => done < count && killed() >= ((done + 1) * kills) / count,
    ended: proceed(),
  }
}
