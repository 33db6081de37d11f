/** A network that goes bad and good again, over and over: what goes wrong when and for how long, from a seed alone. */
import { setTimeout as delay } from 'node:timers/promises'
import type { BedProxy } from '../bed/index.ts'
import { type Random, seededRandom } from './random.ts'

/** What can be wrong, one at a time. */
export const faults = ['latency', 'reset', 'black_hole', 'lost_answers', 'broken_answer', 'cut'] as const
export type Fault = (typeof faults)[number]

interface FaultShape {
  readonly begin: (proxy: BedProxy, random: Random) => Promise<void>
  /** How long it lasts, in milliseconds: from a blink to longer than a lease. */
  readonly lastsMs: readonly [min: number, max: number]
}

const shapes: Readonly<Record<Fault, FaultShape>> = {
  latency: {
    begin: (proxy, random) => proxy.latency(random.integer(20, 150), random.integer(0, 20)),
    lastsMs: [500, 2_500],
  },
  reset: { begin: (proxy) => proxy.reset(), lastsMs: [50, 800] },
  black_hole: { begin: (proxy) => proxy.blackHole(), lastsMs: [200, 2_500] },
  lost_answers: { begin: (proxy) => proxy.loseAnswers(), lastsMs: [200, 2_000] },
  broken_answer: { begin: (proxy, random) => proxy.breakAfter(random.integer(1, 2_000)), lastsMs: [200, 1_500] },
  cut: { begin: (proxy) => proxy.cut(), lastsMs: [50, 1_500] },
}
const calmMs = [200, 1_200] as const

export interface Network {
  /** How often each fault that is to occur has been on. */
  readonly counts: ReadonlyMap<Fault, number>
  /** Each was on at least once. */
  isDone(): boolean
  /** Resolves when it is good again for good: after `signal` aborted. */
  readonly ended: Promise<void>
}

/** Makes the network behind `proxy` bad in these ways and good again until `signal` aborts. */
export function spoilNetwork(
  proxy: BedProxy | undefined,
  occurring: readonly Fault[],
  seed: number,
  signal: AbortSignal,
): Network {
  const counts = new Map<Fault, number>(occurring.map((fault) => [fault, 0]))
  const random = seededRandom(seed, 'network')
  const pass = ([min, max]: readonly [number, number]): Promise<void> =>
    delay(random.integer(min, max), undefined, { signal }).catch(() => {})
  const spoil = async (): Promise<void> => {
    while (proxy && !signal.aborted) {
      for (const fault of random.shuffle(occurring)) {
        await pass(calmMs)
        if (signal.aborted) return
        const { begin, lastsMs } = shapes[fault]
        await begin(proxy, random)
        counts.set(fault, counts.get(fault)! + 1)
        await pass(lastsMs)
        await proxy.heal()
      }
    }
  }
  return {
    counts,
    isDone: () => [...counts.values()].every((count) => count > 0),
    ended: spoil(),
  }
}
