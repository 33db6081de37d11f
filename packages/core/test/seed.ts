/** Randomness of tests: the same on every run, and what to set to repeat or vary one. */

/** Seed of every random test; `IDEMQ_TEST_SEED=7 npm test -- core` takes another. */
export const seed: number = Number(process.env.IDEMQ_TEST_SEED ?? 20_260_101)

export interface Random {
  /** In [0, 1). */
  next(): number
  /** An integer from 0 to `below` - 1. */
  below(below: number): number
  chance(probability: number): boolean
  pick<T>(from: readonly T[]): T
}

/** Mulberry32, by Tommy Ettinger: small, seedable, good enough to shuffle tests. */
export function randomOf(start: number): Random {
  let state = start >>> 0
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = state
    t = Math.imul(t ^ (t >>> 15), t | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
  const below = (limit: number): number => Math.floor(next() * limit)
  return { next, below, chance: (probability) => next() < probability, pick: (from) => from[below(from.length)]! }
}
