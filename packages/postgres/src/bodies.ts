/** Many bodies as one parameter: `pg` sends a Buffer as it is, and an array of them as text of twice the size. */
import type { Outgoing } from '@idemq/core'

export interface PackedBodies {
  readonly bodies: Buffer
  /** Where each begins, from 1, as SQL counts. */
  readonly starts: number[]
  readonly lengths: number[]
}

/** Bodies of one statement are together at most this large, unless one alone is larger. */
const maxPackedBytes = 32 * 1024 * 1024

export function packBodies(messages: readonly Pick<Outgoing, 'body'>[]): PackedBodies {
  const starts: number[] = []
  const lengths: number[] = []
  let next = 1
  for (const { body } of messages) {
    starts.push(next)
    lengths.push(body.byteLength)
    next += body.byteLength
  }
  return { bodies: Buffer.concat(messages.map(({ body }) => body)), starts, lengths }
}

/** `messages` in groups that fit one statement. */
export function byStatement<T extends Pick<Outgoing, 'body'>>(messages: readonly T[]): T[][] {
  const groups: T[][] = []
  let group: T[] = []
  let bytes = 0
  for (const message of messages) {
    if (group.length > 0 && bytes + message.body.byteLength > maxPackedBytes) {
      groups.push(group)
      group = []
      bytes = 0
    }
    group.push(message)
    bytes += message.body.byteLength
  }
  if (group.length > 0) groups.push(group)
  return groups
}
