/** The topics of a queue and of its groups: what they must be like, made or checked. */
import { IdemqError, type Target } from '@idemq/core'
import type { Connection, NewTopic, Topic } from './client.ts'
import { rungs } from './delays.ts'
import type { Names } from './names.ts'

export interface TopicOptions {
  /** Absent = whatever is there, and 6 where a queue is made. */
  readonly partitions?: number
  /** Absent = 3, or as many as there are brokers. */
  readonly replicationFactor?: number
  /** Absent = 2 with three replicas or more, else 1. */
  readonly minInsyncReplicas?: number
  readonly retentionMs: number
  readonly maxBodyBytes: number
}

const defaultPartitions = 6
/** What a record, its batch and its headers take beside the body. */
export const overheadBytes: number = 64 * 1024

type Wanted = NewTopic & { readonly purpose: 'queue' | 'retry' | 'dead' }

/**
 * @throws IdemqError QUEUE_MISSING, QUEUE_MISMATCH naming topic and setting
 */
export async function declareTopics(
  connection: Connection,
  names: Names,
  { name, group }: Target,
  options: TopicOptions,
  mode: 'create' | 'check',
): Promise<void> {
  const queue = names.queue(name)
  const existing = await connection.describeTopic(queue)
  if (!existing && mode === 'check') throw missing(`topic '${queue}' of queue '${name}'`)
  const replicas = options.replicationFactor ?? Math.min(3, await connection.brokerCount())
  const partitions = existing?.partitions ?? options.partitions ?? defaultPartitions
  const wanted = [
    { ...live(queue, options, replicas), partitions: options.partitions ?? partitions, purpose: 'queue' as const },
    ...(group === undefined ? [] : groupTopics(names, name, group, options, replicas, partitions)),
  ]
  if (existing) check(wanted[0]!, existing, options)
  const found = new Map<string, Topic | undefined>([[queue, existing]])
  const others = wanted.slice(1)
  const described = await Promise.all(others.map((each) => connection.describeTopic(each.name)))
  others.forEach((each, i) => {
    found.set(each.name, described[i])
  })
  const absent = wanted.filter((each) => found.get(each.name) === undefined)
  if (absent.length > 0 && mode === 'check')
    throw missing(`topic '${absent[0]!.name}' of queue '${name}', group '${group}'`)
  if (absent.length > 0) await connection.createTopics(absent)
  for (const each of others) {
    const topic = found.get(each.name)
    if (topic) check(each, topic, options)
  }
}

function live(name: string, options: TopicOptions, replicas: number): NewTopic {
  const settings = {
    'cleanup.policy': 'delete',
    'retention.ms': String(options.retentionMs),
    ...common(options, replicas),
  }
  return { name, partitions: options.partitions ?? defaultPartitions, replicas, settings }
}

/** Every rung has as many partitions as the queue: equal keys have equal partitions everywhere. */
function groupTopics(
  names: Names,
  queue: string,
  group: string,
  options: TopicOptions,
  replicas: number,
  partitions: number,
): Wanted[] {
  const settings = { 'cleanup.policy': 'compact', ...common(options, replicas) }
  return [
    ...rungs.map((rung) => ({
      ...live(names.retry(queue, group, rung), options, replicas),
      partitions,
      purpose: 'retry' as const,
    })),
    { name: names.dead(queue, group), purpose: 'dead', partitions: 1, replicas, settings },
  ]
}

function common({ maxBodyBytes, minInsyncReplicas }: TopicOptions, replicas: number): Record<string, string> {
  return {
    'min.insync.replicas': String(minInsyncReplicas ?? (replicas >= 3 ? 2 : 1)),
    'max.message.bytes': String(maxBodyBytes + overheadBytes),
  }
}

/** More than was asked for is as good; less is not. */
function check(wanted: Wanted, topic: Topic, options: TopicOptions): void {
  const refuse = (setting: string, is: unknown, must: string): never => {
    const text = `kafka: topic '${wanted.name}' has ${setting} ${is}, it must be ${must}: change the topic or the option`
    throw new IdemqError('QUEUE_MISMATCH', text)
  }
  const atLeast = (setting: string, is: number, least: number): void => {
    if (is < least) refuse(setting, is, `at least ${least}`)
  }
  const setting = (name: string): string => topic.settings[name] ?? ''
  if (wanted.purpose === 'queue') atLeast('partitions', topic.partitions, wanted.partitions)
  else if (topic.partitions !== wanted.partitions) refuse('partitions', topic.partitions, String(wanted.partitions))
  if (options.replicationFactor !== undefined) atLeast('replication factor', topic.replicas, options.replicationFactor)
  if (options.minInsyncReplicas !== undefined) {
    atLeast('min.insync.replicas', Number(setting('min.insync.replicas')), options.minInsyncReplicas)
  }
  atLeast('max.message.bytes', Number(setting('max.message.bytes')), options.maxBodyBytes + overheadBytes)
  const policy = wanted.purpose === 'dead' ? 'compact' : 'delete'
  if (setting('cleanup.policy') !== policy) refuse('cleanup.policy', setting('cleanup.policy'), policy)
  if (wanted.purpose === 'dead') return
  const retentionMs = Number(setting('retention.ms'))
  if (retentionMs >= 0) atLeast('retention.ms', retentionMs, options.retentionMs)
}

function missing(what: string): IdemqError {
  return new IdemqError('QUEUE_MISSING', `kafka: there is no ${what}: declare it with { declare: 'create' }`)
}
