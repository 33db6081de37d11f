/**
 * Looking at dead letters. They are in a compacted topic of their own, by copyId; a record without value takes one away.
 * A later record may take away an earlier one, so all of it is read for what is left, and once more to show that.
 */
import type { DeadLetterRecord, Visit } from '@idemq/core'
import type { Connection, KafkaRecord } from './client.ts'

const fetchBytes = 1024 * 1024

export async function scanDeadLetters(
  connection: Connection,
  topic: string,
  visit: (letter: DeadLetterRecord) => Promise<Visit>,
  remove: (copyId: string) => Promise<void>,
  signal: AbortSignal,
): Promise<{ readonly complete: boolean }> {
  await connection.watch([topic])
  const partition = { topic, partition: 0 }
  const [[first], [next]] = await Promise.all([
    connection.offsets([partition], 'first'),
    connection.offsets([partition], 'next'),
  ])
  const read = (): AsyncGenerator<KafkaRecord> => records(connection, topic, first?.offset ?? 0, next?.offset ?? 0)
  const latest = new Map<string, number>()
  for await (const { key, value, offset } of read()) {
    if (signal.aborted) return { complete: false }
    const copyId = key?.toString() ?? ''
    if (value) latest.set(copyId, offset)
    else latest.delete(copyId)
  }
  for await (const { key, value, offset } of read()) {
    if (latest.size === 0) break
    const copyId = key?.toString() ?? ''
    if (latest.get(copyId) !== offset || !value) continue
    if (signal.aborted) return { complete: false }
    const wish = await visit({ id: copyId, body: value })
    if (wish === 'stop') return { complete: false }
    if (wish === 'remove') await remove(copyId)
  }
  return { complete: !signal.aborted }
}

async function* records(
  connection: Connection,
  topic: string,
  first: number,
  end: number,
): AsyncGenerator<KafkaRecord> {
  const partition = { topic, partition: 0 }
  for (let offset = first; offset < end; ) {
    const [broker] = connection.byLeader([partition]).keys()
    const [fetched] = await connection.fetch(broker ?? -1, [{ ...partition, offset }], 1_000, fetchBytes)
    // What compaction emptied has no more to say.
    if (!fetched || fetched.nextOffset <= offset) return
    for (const record of fetched.records) if (record.offset < end) yield record
    offset = fetched.nextOffset
  }
}
