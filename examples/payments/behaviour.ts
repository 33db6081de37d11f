import { seededRandom } from '../seeded-random.ts'

/** How a payment provider treats its callers on a given day. Shares are of all calls, from 0 to 1. */
export interface Behaviour {
  /** A usual charge takes between these, in milliseconds. */
  readonly minMs: number
  readonly maxMs: number
  /** Share of charges that take `slowMs`. */
  readonly slowShare: number
  readonly slowMs: number
  /** Share of calls answered 503 with Retry-After, before anything is done. */
  readonly unavailableShare: number
  /** Share of charges that are made and booked, after which the connection is cut without an answer. */
  readonly cutShare: number
}

/** Answers at once and always. */
export const wellBehaved: Behaviour = {
  minMs: 0,
  maxMs: 0,
  slowShare: 0,
  slowMs: 0,
  unavailableShare: 0,
  cutShare: 0,
}

/** A provider on a bad day. */
export const badDay: Behaviour = {
  minMs: 60,
  maxMs: 240,
  slowShare: 0.02,
  slowMs: 1_200,
  unavailableShare: 0.02,
  cutShare: 0.03,
}

export interface Conduct {
  readonly unavailable: boolean
  readonly takesMs: number
  readonly cut: boolean
}

/**
 * What happens to the n-th call with a key. It depends on the seed, the key and n alone, never on timing, so a run's
 * choices can be repeated.
 */
export function conductOf(behaviour: Behaviour, seed: number, idempotencyKey: string, call: number): Conduct {
  const random = seededRandom(`${seed}/${idempotencyKey}/${call}`)
  const unavailable = random() < behaviour.unavailableShare
  const slow = random() < behaviour.slowShare
  const cut = random() < behaviour.cutShare
  const takesMs = slow ? behaviour.slowMs : behaviour.minMs + random() * (behaviour.maxMs - behaviour.minMs)
  return { unavailable, takesMs, cut }
}
