import type { QueueStats } from '@idemq/core'
import type { Connection, TopicPartition } from './client.ts'
import { decodeState } from './offset-metadata.ts'

/**
 * Figures from offsets alone: what was appended, what was committed. A retry topic's records count as delayed until they
 * are received, also when they are due by then; records that other producers' transactions left out count as well.
 */
export async function groupStats(
  connection: Connection,
  group: string,
  /** The topics of the group, and how long each waits before it looks at a record. */
  topics: ReadonlyMap<string, number>,
): Promise<QueueStats> {
  await connection.watch([...topics.keys()])
  const partitions = [...topics.keys()].flatMap((topic) =>
    Array.from({ length: connection.partitionCount(topic) }, (_, partition): TopicPartition => ({ topic, partition })),
  )
  // Offsets first: what is appended meanwhile is not counted, rather than counted as less than nothing.
  const [firsts, committed, hasMembers] = await Promise.all([
    connection.offsets(partitions, 'first'),
    connection.committed(group, partitions),
    connection.hasMembers(group),
  ])
  const nexts = await connection.offsets(partitions, 'next')
  const keyOf = ({ topic, partition }: TopicPartition): string => `${topic} ${partition}`
  const firstOf = new Map(firsts.map((each) => [keyOf(each), each.offset]))
  const committedOf = new Map(committed.map((each) => [keyOf(each), each]))
  let [ready, delayed, inFlight] = [0, 0, 0]
  for (const each of nexts) {
    const key = keyOf(each)
    const { offset = -1, metadata = '' } = committedOf.get(key) ?? {}
    const watermark = Math.max(offset, firstOf.get(key) ?? 0)
    const { frontier, undone } = decodeState(watermark, metadata)
    const alive = hasMembers ? [...undone.values()].filter((mark) => mark % 2 === 1).length : 0
    const waiting = Math.max(0, each.offset - frontier) + undone.size - alive
    inFlight += alive
    if (topics.get(each.topic) === 0) ready += waiting
    else delayed += waiting
  }
  return { ready, delayed, inFlight }
}
