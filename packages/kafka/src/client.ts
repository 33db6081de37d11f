/**
 * What this adapter needs of a Kafka client: requests of the protocol, one at a time, and their answers. Loops, buffers,
 * offsets and membership are ours, so that another client can take the place of the one in `kafkajs-client.ts`. Calls
 * reject with an IdemqError whose cause is the client's error; {@link protocolError} says what the broker answered.
 */

export interface TopicPartition {
  readonly topic: string
  readonly partition: number
}

export interface Position extends TopicPartition {
  readonly offset: number
}

export interface KafkaRecord {
  readonly offset: number
  readonly timestampMs: number
  readonly key: Buffer | null
  readonly value: Buffer | null
  readonly headers: Readonly<Record<string, string>>
}

export type NewRecord = Pick<KafkaRecord, 'key' | 'value' | 'headers'>

/** What one partition answered: records that were committed, and where to go on. */
export interface Fetched extends Position {
  readonly records: readonly KafkaRecord[]
  readonly nextOffset: number
}

export interface Topic {
  readonly partitions: number
  readonly replicas: number
  readonly settings: Readonly<Record<string, string>>
}

export interface NewTopic extends Topic {
  readonly name: string
}

export interface GroupMember {
  readonly id: string
  readonly generation: number
}

export interface Joined extends GroupMember {
  /** Everybody, where this one leads. */
  readonly members?: readonly { readonly id: string; readonly topics: readonly string[]; readonly userData: Buffer }[]
}

export interface MemberShare {
  readonly partitions: Readonly<Record<string, readonly number[]>>
  readonly userData: Buffer
}

export interface Committed extends Position {
  readonly metadata: string
}

/** How a group treats its members, in milliseconds. */
export interface GroupTimeouts {
  readonly sessionTimeoutMs: number
  readonly rebalanceTimeoutMs: number
}

/** Connections to the brokers, opened when first used. */
export interface Connection {
  /** Loads where the partitions of `topics` are; they must exist. Kept up to date from then on. */
  watch(topics: readonly string[]): Promise<void>
  partitionCount(topic: string): number
  /** Partitions by the broker that leads them, as far as is known. */
  byLeader<T extends TopicPartition>(partitions: readonly T[]): ReadonlyMap<number, readonly T[]>
  /** Waits up to `waitMs` for a record. The partitions must be led by `broker`. */
  fetch(broker: number, from: readonly Position[], waitMs: number, partitionBytes: number): Promise<Fetched[]>
  /** The first offset there is, or the one that comes next. */
  offsets(partitions: readonly TopicPartition[], which: 'first' | 'next'): Promise<Position[]>
  /** Where nothing is committed, `offset` is -1. */
  committed(group: string, partitions: readonly TopicPartition[]): Promise<Committed[]>
  commit(group: string, member: GroupMember, offsets: readonly Committed[]): Promise<void>
  join(
    group: string,
    memberId: string,
    topics: readonly string[],
    userData: Buffer,
    timeouts: GroupTimeouts,
  ): Promise<Joined>
  sync(group: string, member: GroupMember, shares: ReadonlyMap<string, MemberShare>): Promise<MemberShare>
  heartbeat(group: string, member: GroupMember): Promise<void>
  leave(group: string, memberId: string): Promise<void>
  hasMembers(group: string): Promise<boolean>
  /** `undefined` where there is no such topic. */
  describeTopic(name: string): Promise<Topic | undefined>
  /** Topics that exist already stay as they are. Resolves once every broker knows them and their leaders lead. */
  createTopics(topics: readonly NewTopic[]): Promise<void>
  brokerCount(): Promise<number>
  close(): Promise<void>
}

/** Idempotent, confirmed by all replicas that are in sync. Calls for one topic must not overlap. */
export interface Producer {
  connect(): Promise<void>
  /** Partitions by key. A rejection says nothing about what was stored. */
  send(topic: string, records: readonly NewRecord[]): Promise<void>
  close(): Promise<void>
}

export interface KafkaClient {
  /** For messages: never with credentials. */
  readonly where: string
  connection(): Connection
  producer(): Producer
}
