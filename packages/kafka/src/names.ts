/**
 * What queues and groups are called on the broker. Kafka takes '.' and '_' for one character where names might collide,
 * so '_' is written '.-u', and '.' as it is only before a letter or digit, else '.-d': names that differ never collide,
 * and '..' is free to part the queue from the group and what the topic is for.
 */
import { createHash } from 'node:crypto'
import type { Rung } from './delays.ts'

const longestName = 249

export interface Names {
  /** The topic of the queue itself. */
  queue(name: string): string
  /** Kafka's consumer group. */
  group(name: string, group: string): string
  /** The topic where a group's copies wait that are not due before `rung` is over. */
  retry(name: string, group: string, rung: Rung): string
  dead(name: string, group: string): string
}

export function names(prefix: string): Names {
  const queue = (name: string): string => bounded(prefix + escaped(name))
  const of = (name: string, group: string, purpose: string): string =>
    bounded(`${prefix}${escaped(name)}..${escaped(group)}${purpose}`)
  return {
    queue,
    group: (name, group) => of(name, group, ''),
    retry: (name, group, { suffix }) => of(name, group, `..retry${suffix}`),
    dead: (name, group) => of(name, group, '..dead'),
  }
}

function escaped(name: string): string {
  return name.replace(/_|\.(?![A-Za-z0-9])/g, (character) => (character === '_' ? '.-u' : '.-d'))
}

/** Too long, it ends in a digest of the whole instead. */
function bounded(name: string): string {
  if (name.length <= longestName) return name
  const digest = createHash('sha256').update(name).digest('hex').slice(0, 32)
  return `${name.slice(0, longestName - digest.length - 2)}..${digest}`
}
