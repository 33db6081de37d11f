/** What a script needs to know of deliveries to tell whether they are still held, as its arguments. */
import type { Argument } from './connection.ts'

export interface Fence {
  /** Of the entry: milliseconds, `-`, a number. */
  readonly id: Buffer
  readonly copyId: Buffer
  readonly priorDeliveries: number
}

/** `released`: the places from 1 of those that are given back; the others are acked. */
export function settleArguments(
  consumer: string,
  deliveries: readonly Fence[],
  released: readonly number[],
): Argument[] {
  const args = named(consumer, deliveries)
  for (const { copyId } of deliveries) args.push(copyId)
  args.push(released.length, ...released)
  pushCounts(args, deliveries)
  return args
}

export function extendArguments(consumer: string, deliveries: readonly Fence[]): Argument[] {
  const args = named(consumer, deliveries)
  pushCounts(args, deliveries)
  return args
}

function named(consumer: string, deliveries: readonly Fence[]): Argument[] {
  const args: Argument[] = [consumer, 0, 0, deliveries.length]
  let [first, last] = [Number.POSITIVE_INFINITY, 0]
  for (const { id } of deliveries) {
    args.push(id)
    const ms = millisecondsOf(id)
    if (ms < first) first = ms
    if (ms > last) last = ms
  }
  args[1] = first
  args[2] = last
  return args
}

/** Nearly all were delivered once: only the others say how often. */
function pushCounts(args: Argument[], deliveries: readonly Fence[]): void {
  for (const [i, { priorDeliveries }] of deliveries.entries()) {
    if (priorDeliveries > 0) args.push(i + 1, priorDeliveries + 1)
  }
}

const hyphen = 0x2d
const zero = 0x30

export function millisecondsOf(id: Uint8Array): number {
  let ms = 0
  for (let i = 0; i < id.length && id[i] !== hyphen; i++) ms = 10 * ms + id[i]! - zero
  return ms
}
