/** The broker on Kafka: maps the driver contract to topics, groups and offsets. */
import {
  type Capabilities,
  type Clock,
  type Driver,
  IdemqError,
  type Outgoing,
  type QueueRef,
  type Receiver,
  type Sent,
} from '@idemq/core'
import type { Connection, GroupTimeouts, KafkaClient, KafkaRecord } from './client.ts'
import { scanDeadLetters } from './dead-letters.ts'
import { rungFor, rungs } from './delays.ts'
import { names as namesOf } from './names.ts'
import { openReceiver } from './receiver.ts'
import { Sender } from './sender.ts'
import { aborted, unlessAborted } from './signals.ts'
import { groupStats } from './stats.ts'
import { declareTopics, overheadBytes, type TopicOptions } from './topics.ts'
import type { KafkaWarning } from './warning.ts'
import { deadRecordOf, recordOf } from './wire.ts'

export interface DriverOptions extends TopicOptions, GroupTimeouts {
  readonly prefix: string
  readonly heartbeatMs: number
  readonly clock: Clock
  readonly onWarning: (warning: KafkaWarning) => void
}

const maxBatch = 1_000
const never = new AbortController().signal

export function kafkaDriver(client: KafkaClient, options: DriverOptions): Driver {
  const { clock, maxBodyBytes, retentionMs } = options
  const names = namesOf(options.prefix)
  const sender = new Sender(client, maxBodyBytes + overheadBytes / 2)
  const receivers = new Set<Receiver>()
  let closed = false

  const capabilities: Capabilities = {
    durability: (options.minInsyncReplicas ?? 1) > 1 ? 'sync' : 'async',
    retentionMs,
    maxBodyBytes,
    maxBatch,
    delayGranularityMs: 100,
    returnsBy: 'rebalance',
    canExtend: true,
    counts: 'starts',
    freeRelease: true,
    dedupesSends: false,
    fencedSettle: true,
    ordering: 'first-attempts',
    groups: true,
    deadScan: 'full',
    push: false,
    stats: ['ready', 'delayed', 'inFlight'],
  }

  const topicsOf = ({ name, group }: QueueRef): Map<string, number> =>
    new Map([
      [names.queue(name), 0],
      ...rungs.map((rung): [string, number] => [names.retry(name, group, rung), rung.waitMs]),
    ])

  async function run<T>(what: string, signal: AbortSignal, call: () => Promise<T>): Promise<T> {
    if (closed) throw new IdemqError('CLOSED', 'the kafka driver is closed')
    return unlessAborted(call(), signal, what)
  }

  /** On connections of its own: what one queue's topics come to does not touch the others. */
  async function withConnection<T>(call: (connection: Connection) => Promise<T>): Promise<T> {
    const connection = client.connection()
    try {
      return await call(connection)
    } finally {
      await connection.close().catch(() => {})
    }
  }

  /** Sends what fits; what is too large fails alone. */
  async function send(
    batch: readonly Outgoing[],
    signal: AbortSignal,
    topicOf: (message: Outgoing) => string,
    encode: (message: Outgoing) => ReturnType<typeof recordOf>,
  ): Promise<Sent[]> {
    if (closed) throw new IdemqError('CLOSED', 'the kafka driver is closed')
    if (signal.aborted) throw aborted(signal, 'send')
    const answers: Sent[] = batch.map((message) => tooLarge(message, maxBodyBytes) ?? { status: 'unknown' })
    const byTopic = new Map<string, number[]>()
    batch.forEach((message, i) => {
      if (answers[i]!.status === 'failed') return
      const topic = topicOf(message)
      byTopic.set(topic, [...(byTopic.get(topic) ?? []), i])
    })
    const sends = await Promise.allSettled(
      Array.from(byTopic, async ([topic, indexes]) => {
        const sent = await sender.send(
          topic,
          indexes.map((i) => encode(batch[i]!)),
          signal,
        )
        sent.forEach((answer, i) => {
          answers[indexes[i]!] = answer
        })
      }),
    )
    const failed = sends.filter((each) => each.status === 'rejected')
    if (failed.length > 0 && failed.length === sends.length) throw failed[0]!.reason
    ;[...byTopic.values()].forEach((indexes, at) => {
      const outcome = sends[at]!
      if (outcome.status === 'rejected')
        for (const i of indexes) answers[i] = { status: 'failed', error: outcome.reason }
    })
    return answers
  }

  return {
    name: 'kafka',
    capabilities,

    declare(target, mode, signal) {
      const what = `declare queue '${target.name}'`
      return run(what, signal, () =>
        withConnection((connection) => declareTopics(connection, names, target, options, mode)),
      )
    },

    send({ name, group }, batch, signal) {
      const topicOf = ({ delayMs }: Outgoing): string =>
        group === undefined ? names.queue(name) : names.retry(name, group, rungFor(delayMs))
      return send(batch, signal, topicOf, (message) => recordOf(message, clock.now()))
    },

    sendDead({ name, group }, batch, signal) {
      const topic = names.dead(name, group)
      return send(
        batch,
        signal,
        () => topic,
        ({ copyId, body }) => deadRecordOf(copyId, body),
      )
    },

    open(queue, openOptions, signal) {
      return run(`open queue '${queue.name}'`, signal, async () => {
        let receiver: Receiver | undefined
        receiver = await openReceiver(
          {
            ...options,
            ...openOptions,
            connection: client.connection(),
            group: names.group(queue.name, queue.group),
            topics: topicsOf(queue),
            sendOn: async (waitMs, records) => {
              const topic = names.retry(queue.name, queue.group, rungFor(waitMs))
              const sent = await sender.send(topic, records.map(onwardRecord), never)
              if (sent.every(({ status }) => status === 'stored')) return
              throw new IdemqError('BROKER_UNAVAILABLE', `kafka: delayed copies could not be sent on to '${topic}'`)
            },
            onClose: () => {
              if (receiver) receivers.delete(receiver)
            },
          },
          signal,
        )
        receivers.add(receiver)
        if (closed || signal.aborted) await receiver.close()
        return receiver
      })
    },

    stats(queue, signal) {
      const group = names.group(queue.name, queue.group)
      return run(`count queue '${queue.name}'`, signal, () =>
        withConnection((connection) => groupStats(connection, group, topicsOf(queue))),
      )
    },

    async scanDead({ name, group }, visit, signal) {
      const topic = names.dead(name, group)
      if (closed) throw new IdemqError('CLOSED', 'the kafka driver is closed')
      // Whoever visited counts on it, whatever was aborted meanwhile.
      const remove = async (copyId: string): Promise<void> => {
        const [sent] = await sender.send(topic, [deadRecordOf(copyId, null)], never)
        if (sent?.status === 'failed') throw sent.error
        if (sent?.status === 'unknown')
          throw new IdemqError('SEND_UNKNOWN', `kafka: dead letter ${copyId} may be removed`)
      }
      return withConnection((connection) => scanDeadLetters(connection, topic, visit, remove, signal))
    },

    async close() {
      closed = true
      await Promise.all([...receivers].map((receiver) => receiver.close()))
      await sender.close()
    },
  }
}

function onwardRecord({ key, value, headers }: KafkaRecord): Pick<KafkaRecord, 'key' | 'value' | 'headers'> {
  return { key, value, headers }
}

function tooLarge({ copyId, body }: Outgoing, maxBodyBytes: number): Sent | undefined {
  if (body.byteLength <= maxBodyBytes) return undefined
  const text = `kafka: copy ${copyId} has ${body.byteLength} bytes, the limit is ${maxBodyBytes}`
  return { status: 'failed', error: new IdemqError('BODY_TOO_LARGE', text) }
}
