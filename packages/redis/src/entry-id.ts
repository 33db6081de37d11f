/** Ids of stream entries: `milliseconds-sequence`. */

/** The lowest and the highest id, in the order of the stream. */
export function idSpan(entries: readonly { readonly id: string }[]): [low: string, high: string] {
  let [low, high] = ['+', '-']
  for (const { id } of entries) {
    if (low === '+' || isBefore(id, low)) low = id
    if (high === '-' || isBefore(high, id)) high = id
  }
  return [low, high]
}

function isBefore(one: string, other: string): boolean {
  const [ms, sequence] = one.split('-').map(Number) as [number, number]
  const [otherMs, otherSequence] = other.split('-').map(Number) as [number, number]
  return ms < otherMs || (ms === otherMs && sequence < otherSequence)
}
