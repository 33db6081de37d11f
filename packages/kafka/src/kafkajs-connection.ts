/**
 * Connections on kafkajs. Its consumer loop is not used: that loop ties heartbeats to fetching, commits under whatever
 * generation it has by then, and forgets what is in hand at every rebalance. What lies beneath it (its cluster, as it
 * gives it to partition assigners) sends single requests.
 */
import kafkajs, { type Cluster, type Kafka } from 'kafkajs'
import type {
  Committed,
  Connection,
  Fetched,
  GroupMember,
  GroupTimeouts,
  Joined,
  MemberShare,
  NewTopic,
  Position,
  Topic,
  TopicPartition,
} from './client.ts'
import { kafkaError, protocolError } from './kafka-error.ts'
import { fetchedFrom, type RawBroker } from './kafkajs-raw.ts'
import { patiently } from './patience.ts'

// Its exports have no names that a module could import.
const { ConfigResourceTypes } = kafkajs
const { MemberMetadata, MemberAssignment } = kafkajs.AssignerProtocol

/** The name under which members offer our way of sharing. */
const protocolName = 'idemq-1'
const readCommitted = 1
/** A topic that was just made is not there for a broker before it has heard of it, nor for its leaders before they lead. */
const isNew = new Set(['UNKNOWN_TOPIC_OR_PARTITION', 'LEADER_NOT_AVAILABLE', 'NOT_LEADER_FOR_PARTITION'])
/** After these the group has another coordinator, or none yet. */
const coordinatorMoved = new Set([
  'NOT_COORDINATOR_FOR_GROUP',
  'GROUP_COORDINATOR_NOT_AVAILABLE',
  'GROUP_LOAD_IN_PROGRESS',
])

export class KafkajsConnection implements Connection {
  readonly #where: string
  readonly #cluster: Cluster
  #coordinator: RawBroker | undefined

  constructor(kafka: Kafka, where: string) {
    this.#where = where
    let cluster: Cluster | undefined
    kafka.consumer({
      groupId: protocolName,
      allowAutoTopicCreation: false,
      partitionAssigners: [
        (given) => {
          cluster = given.cluster
          return {
            name: protocolName,
            version: 1,
            assign: async () => [],
            protocol: () => ({ name: '', metadata: Buffer.alloc(0) }),
          }
        },
      ],
    })
    this.#cluster = cluster!
  }

  watch(topics: readonly string[]): Promise<void> {
    return this.#run(`find topics ${topics.join(', ')}`, () => this.#cluster.addMultipleTargetTopics([...topics]))
  }

  partitionCount(topic: string): number {
    return this.#cluster.findTopicPartitionMetadata(topic).length
  }

  byLeader<T extends TopicPartition>(partitions: readonly T[]): Map<number, T[]> {
    const led = new Map<number, T[]>()
    for (const each of partitions) {
      const known = this.#cluster.findTopicPartitionMetadata(each.topic)
      const leader = known.find(({ partitionId }) => partitionId === each.partition)?.leader ?? -1
      const own = led.get(leader)
      if (own) own.push(each)
      else led.set(leader, [each])
    }
    return led
  }

  async fetch(broker: number, from: readonly Position[], waitMs: number, partitionBytes: number): Promise<Fetched[]> {
    const offsetOf = new Map(from.map((each) => [`${each.topic} ${each.partition}`, each.offset]))
    const what = `fetch from ${[...new Set(from.map(({ topic }) => topic))].join(', ')}`
    const topics = byTopic(from, ({ partition, offset }) => ({
      partition,
      fetchOffset: String(offset),
      maxBytes: partitionBytes,
    }))
    const { responses } = await this.#run(what, async () => {
      await this.#cluster.refreshMetadataIfNecessary()
      const leader = await this.#broker(broker)
      return leader.fetch({
        maxWaitTime: waitMs,
        minBytes: 1,
        maxBytes: 64 * partitionBytes,
        isolationLevel: readCommitted,
        topics,
      })
    }).catch(async (error: unknown) => {
      // Leaders may have moved: the next fetch must know.
      if (protocolError(error) !== 'OFFSET_OUT_OF_RANGE') await this.#cluster.refreshMetadata().catch(() => {})
      throw error
    })
    return responses.flatMap(({ topicName: topic, partitions }) =>
      partitions.map((answer) => {
        const { partition } = answer
        return fetchedFrom({ topic, partition, offset: offsetOf.get(`${topic} ${partition}`)! }, answer)
      }),
    )
  }

  offsets(partitions: readonly TopicPartition[], which: 'first' | 'next'): Promise<Position[]> {
    return this.#run('list offsets', async () => {
      await this.#cluster.refreshMetadataIfNecessary()
      const topics = byTopic(partitions, ({ partition }) => ({ partition }))
      const found = await this.#cluster.fetchTopicsOffset(
        topics.map((each) => ({ ...each, fromBeginning: which === 'first' })),
      )
      return found.flatMap(({ topic, partitions }) =>
        partitions.map(({ partition, offset }) => ({ topic, partition, offset: Number(offset) })),
      )
    })
  }

  async committed(group: string, partitions: readonly TopicPartition[]): Promise<Committed[]> {
    const topics = byTopic(partitions, ({ partition }) => ({ partition }))
    const { responses } = await this.#coordinate(group, `read offsets of group '${group}'`, (coordinator) =>
      coordinator.offsetFetch({ groupId: group, topics }),
    )
    return responses.flatMap(({ topic, partitions }) =>
      partitions.map(({ partition, offset, metadata }) => ({
        topic,
        partition,
        offset: Number(offset),
        metadata: metadata ?? '',
      })),
    )
  }

  async commit(group: string, member: GroupMember, offsets: readonly Committed[]): Promise<void> {
    const topics = byTopic(offsets, ({ partition, offset, metadata }) => ({
      partition,
      offset: String(offset),
      metadata,
    }))
    await this.#coordinate(group, `commit offsets of group '${group}'`, (coordinator) =>
      coordinator.offsetCommit({ groupId: group, groupGenerationId: member.generation, memberId: member.id, topics }),
    )
  }

  async join(
    group: string,
    memberId: string,
    topics: readonly string[],
    userData: Buffer,
    { sessionTimeoutMs: sessionTimeout, rebalanceTimeoutMs: rebalanceTimeout }: GroupTimeouts,
  ): Promise<Joined> {
    const metadata = MemberMetadata.encode({ version: 1, topics: [...topics], userData })
    const groupProtocols = [{ name: protocolName, metadata }]
    const joined = await this.#coordinate(group, `join group '${group}'`, (coordinator) =>
      coordinator.joinGroup({ groupId: group, sessionTimeout, rebalanceTimeout, memberId, groupProtocols }),
    )
    const { memberId: id, generationId: generation } = joined
    if (joined.leaderId !== id) return { id, generation }
    const members = joined.members.map(({ memberId, memberMetadata }) => {
      const decoded = MemberMetadata.decode(memberMetadata)
      return { id: memberId, topics: decoded?.topics ?? [], userData: decoded?.userData ?? Buffer.alloc(0) }
    })
    return { id, generation, members }
  }

  async sync(
    group: string,
    { id, generation }: GroupMember,
    shares: ReadonlyMap<string, MemberShare>,
  ): Promise<MemberShare> {
    const groupAssignment = Array.from(shares, ([memberId, { partitions, userData }]) => ({
      memberId,
      memberAssignment: MemberAssignment.encode({
        version: 1,
        assignment: partitions as Record<string, number[]>,
        userData,
      }),
    }))
    const { memberAssignment } = await this.#coordinate(group, `join group '${group}'`, (coordinator) =>
      coordinator.syncGroup({ groupId: group, generationId: generation, memberId: id, groupAssignment }),
    )
    const decoded = MemberAssignment.decode(memberAssignment)
    return { partitions: decoded?.assignment ?? {}, userData: decoded?.userData ?? Buffer.alloc(0) }
  }

  async heartbeat(group: string, { id, generation }: GroupMember): Promise<void> {
    await this.#coordinate(group, `keep the membership in group '${group}'`, (coordinator) =>
      coordinator.heartbeat({ groupId: group, groupGenerationId: generation, memberId: id }),
    )
  }

  async leave(group: string, memberId: string): Promise<void> {
    await this.#coordinate(group, `leave group '${group}'`, (coordinator) =>
      coordinator.leaveGroup({ groupId: group, memberId }),
    )
  }

  async hasMembers(group: string): Promise<boolean> {
    const { groups } = await this.#coordinate(group, `describe group '${group}'`, (coordinator) =>
      coordinator.describeGroups({ groupIds: [group] }),
    )
    return groups.some(({ members }) => members.length > 0)
  }

  async describeTopic(name: string): Promise<Topic | undefined> {
    const what = `describe topic '${name}'`
    try {
      return await this.#run(what, async () => {
        const broker = await this.#controller()
        const { topicMetadata } = await broker.metadata([name])
        const partitions = topicMetadata[0]?.partitionMetadata ?? []
        const { resources } = await broker.describeConfigs({ resources: [{ type: ConfigResourceTypes.TOPIC, name }] })
        const entries = resources[0]?.configEntries ?? []
        return {
          partitions: partitions.length,
          replicas: Math.min(...partitions.map(({ replicas }) => replicas.length)),
          settings: Object.fromEntries(entries.map(({ configName, configValue }) => [configName, configValue ?? ''])),
        }
      })
    } catch (error) {
      if (protocolError(error) === 'UNKNOWN_TOPIC_OR_PARTITION') return undefined
      throw error
    }
  }

  async createTopics(topics: readonly NewTopic[]): Promise<void> {
    const names = topics.map(({ name }) => name)
    await this.#run(`create topics ${names.join(', ')}`, async () => {
      const controller = await this.#controller()
      const requests = topics.map(({ name, partitions, replicas, settings }) => ({
        topic: name,
        numPartitions: partitions,
        replicationFactor: replicas,
        configEntries: Object.entries(settings).map(([name, value]) => ({ name, value })),
      }))
      await controller.createTopics({ topics: requests, timeout: 10_000 }).catch((error: unknown) => {
        const { errors = [error] } = error as { errors?: readonly unknown[] }
        const refused = errors.find((each) => protocolError(each) !== 'TOPIC_ALREADY_EXISTS')
        if (refused !== undefined) throw refused
      })
      for (const node of this.#cluster.getNodeIds()) {
        const broker = await this.#broker(Number(node))
        await patiently(isNew, () => broker.metadata(names))
      }
      await patiently(isNew, async () => {
        await this.#cluster.addMultipleTargetTopics(names)
        await this.#cluster.refreshMetadata()
        const all = topics.flatMap(({ name, partitions }) =>
          Array.from({ length: partitions }, (_, partition) => ({ topic: name, partition })),
        )
        await this.offsets(all, 'next')
      })
    })
  }

  brokerCount(): Promise<number> {
    return this.#run('count the brokers', async () => {
      await this.#cluster.refreshMetadata()
      return this.#cluster.getNodeIds().length
    })
  }

  close(): Promise<void> {
    return this.#cluster.disconnect()
  }

  async #run<T>(what: string, call: () => Promise<T>): Promise<T> {
    try {
      await this.#cluster.connect()
      return await call()
    } catch (error) {
      throw kafkaError(error, what, this.#where)
    }
  }

  /**
   * Runs `call` on the broker that coordinates `group`; one connection serves one group. A coordinator that is just being
   * made, loaded or moved is waited for: every broker's start begins so.
   */
  #coordinate<T>(group: string, what: string, call: (coordinator: RawBroker) => Promise<T>): Promise<T> {
    return this.#run(what, () =>
      patiently(coordinatorMoved, async () => {
        if (!this.#coordinator?.isConnected()) {
          await this.#cluster.refreshMetadataIfNecessary()
          this.#coordinator = (await this.#cluster.findGroupCoordinator({ groupId: group })) as unknown as RawBroker
        }
        try {
          return await call(this.#coordinator)
        } catch (error) {
          if (coordinatorMoved.has(protocolError(error) ?? '')) this.#coordinator = undefined
          throw error
        }
      }),
    )
  }

  async #broker(nodeId: number): Promise<RawBroker> {
    return (await this.#cluster.findBroker({ nodeId: String(nodeId) })) as unknown as RawBroker
  }

  async #controller(): Promise<RawBroker> {
    await this.#cluster.refreshMetadataIfNecessary()
    return (await this.#cluster.findControllerBroker()) as unknown as RawBroker
  }
}

function byTopic<T extends TopicPartition, R>(
  items: readonly T[],
  of: (item: T) => R,
): { topic: string; partitions: R[] }[] {
  const topics = new Map<string, R[]>()
  for (const item of items) {
    const own = topics.get(item.topic)
    if (own) own.push(of(item))
    else topics.set(item.topic, [of(item)])
  }
  return Array.from(topics, ([topic, partitions]) => ({ topic, partitions }))
}
