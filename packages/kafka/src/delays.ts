/**
 * The ladder of retry topics. One topic has one constant wait, so that its records fall due in the order they were
 * appended and a short delay never stands behind a long one. A copy goes to the rung with the longest wait that does
 * not exceed its delay; when that is over, what is left of the delay is waited for in memory while there is room, else
 * on a lower rung. So it is never early, and late only where too many are due within one short wait.
 */
export interface Rung {
  readonly waitMs: number
  /** Ends the topic's name. */
  readonly suffix: string
}

export const rungs: readonly Rung[] = [
  { waitMs: 0, suffix: '' },
  { waitMs: 1_000, suffix: '-1s' },
  { waitMs: 10_000, suffix: '-10s' },
  { waitMs: 60_000, suffix: '-1m' },
  { waitMs: 600_000, suffix: '-10m' },
  { waitMs: 3_600_000, suffix: '-1h' },
]

/** The highest rung whose wait does not exceed `delayMs`. */
export function rungFor(delayMs: number): Rung {
  return rungs.findLast(({ waitMs }) => waitMs <= delayMs) ?? rungs[0]!
}

/** Less than this is always waited for where the record is. */
export const shortestRungMs: number = rungs[1]!.waitMs
