/** What kafkajs answers beyond what its types tell, and what a fetch of it holds. */
import type { KafkaMessage } from 'kafkajs'
import type { Fetched, KafkaRecord, Position } from './client.ts'

/** What kafkajs's Broker does beyond what its types tell. */
export interface RawBroker {
  isConnected(): boolean
  metadata(topics: readonly string[]): Promise<RawMetadata>
  fetch(request: object): Promise<{ readonly responses: readonly RawFetched[] }>
  offsetCommit(request: object): Promise<unknown>
  offsetFetch(request: object): Promise<{ readonly responses: readonly RawOffsets[] }>
  joinGroup(request: object): Promise<RawJoined>
  syncGroup(request: object): Promise<{ readonly memberAssignment: Buffer }>
  heartbeat(request: object): Promise<unknown>
  leaveGroup(request: object): Promise<unknown>
  describeGroups(request: object): Promise<{ readonly groups: readonly { readonly members: readonly unknown[] }[] }>
  createTopics(request: object): Promise<unknown>
  describeConfigs(request: object): Promise<RawConfigs>
}
interface RawMetadata {
  readonly topicMetadata: readonly { readonly partitionMetadata: readonly { readonly replicas: readonly number[] }[] }[]
}
interface RawFetched {
  readonly topicName: string
  readonly partitions: readonly RawPartition[]
}
interface RawPartition {
  readonly partition: number
  readonly abortedTransactions?: readonly Aborted[] | null
  readonly messages: readonly RawMessage[]
}
type RawMessage = KafkaMessage & {
  readonly isControlRecord?: boolean
  readonly batchContext?: { readonly producerId: string; readonly inTransaction: boolean }
}
interface Aborted {
  readonly producerId: string
  readonly firstOffset: string
}
interface RawOffsets {
  readonly topic: string
  readonly partitions: readonly {
    readonly partition: number
    readonly offset: string
    readonly metadata?: string | null
  }[]
}
interface RawJoined {
  readonly generationId: number
  readonly leaderId: string
  readonly memberId: string
  readonly members: readonly { readonly memberId: string; readonly memberMetadata: Buffer }[]
}
interface RawConfigs {
  readonly resources: readonly {
    readonly configEntries: readonly { readonly configName: string; readonly configValue: string | null }[]
  }[]
}

/** What one partition answered to a fetch from `position`. */
export function fetchedFrom(position: Position, { messages, abortedTransactions }: RawPartition): Fetched {
  // A batch may begin before what was asked for.
  const within = messages.filter((message) => Number(message.offset) >= position.offset)
  const last = within.at(-1)
  return {
    ...position,
    nextOffset: last ? Number(last.offset) + 1 : position.offset,
    records: committedOnly(within, abortedTransactions ?? []).map(recordOf),
  }
}

/** Without control records, and without what transactions that were aborted wrote. */
function committedOnly(messages: readonly RawMessage[], aborted: readonly Aborted[]): RawMessage[] {
  const toCome = [...aborted].sort((a, b) => Number(a.firstOffset) - Number(b.firstOffset))
  const open = new Set<string>()
  return messages.filter((message) => {
    while (toCome[0] && Number(message.offset) >= Number(toCome[0].firstOffset)) open.add(toCome.shift()!.producerId)
    const { producerId = '', inTransaction = false } = message.batchContext ?? {}
    // A control record ends its producer's transaction.
    if (message.isControlRecord) open.delete(producerId)
    return !message.isControlRecord && !(inTransaction && open.has(producerId))
  })
}

function recordOf({ offset, timestamp, key, value, headers }: RawMessage): KafkaRecord {
  return {
    offset: Number(offset),
    timestampMs: Number(timestamp),
    key,
    value,
    headers: Object.fromEntries(Object.entries(headers ?? {}).map(([name, text]) => [name, String(text)])),
  }
}
