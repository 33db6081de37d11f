/** Random choices that a seed repeats. */
import { hash } from 'node:crypto'

export interface Random {
  /** In [0, 1). */
  next(): number
  /** An integer from `min` to `max`, both included. */
  integer(min: number, max: number): number
  pick<T>(list: readonly T[]): T
  /** A new list in random order (Fisher–Yates). */
  shuffle<T>(list: readonly T[]): T[]
}

/** A generator of its own for each combination of seed and labels, so that no stream depends on another's use. */
export function seededRandom(seed: number, ...labels: readonly (string | number)[]): Random {
  let state = Number.parseInt(hash('sha256', [seed, ...labels].join('/'), 'hex').slice(0, 8), 16)
  // mulberry32 by Tommy Ettinger, public domain.
  const next = (): number => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
  const integer = (min: number, max: number): number => min + Math.floor(next() * (max - min + 1))
  return {
    next,
    integer,
    pick(list) {
      if (list.length === 0) throw new Error('nothing to pick from')
      return list[integer(0, list.length - 1)]!
    },
    shuffle(list) {
      const order = [...list]
      for (let i = order.length - 1; i > 0; i--) {
        const j = integer(0, i)
        ;[order[i], order[j]] = [order[j]!, order[i]!]
      }
      return order
    },
  }
}
