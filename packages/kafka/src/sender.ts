import { IdemqError, type Sent } from '@idemq/core'
import type { KafkaClient, NewRecord, Producer } from './client.ts'
import { protocolError, refusesTopic } from './kafka-error.ts'
import { aborted } from './signals.ts'
import { sizeOf } from './wire.ts'

interface Waiting {
  readonly record: NewRecord
  readonly size: number
  sent: boolean
  readonly settle: (sent: Sent) => void
}

interface Lane {
  readonly waiting: Waiting[]
  busy: boolean
}

interface Shared {
  readonly producer: Producer
  readonly connecting: Promise<void>
  users: number
  retired: boolean
}

/** kafkajs takes time with the square of them. */
const maxBatchRecords = 1_000
const stored: Sent = { status: 'stored' }
const unknown: Sent = { status: 'unknown' }

/**
 * Sends through one idempotent producer, one batch at a time for each topic: its sequence numbers stand for what was
 * sent under them, and a batch that takes the number of one whose fate is unknown would be taken for its repeat and
 * dropped. For the same reason a producer that failed is not used again.
 */
export class Sender {
  readonly #client: KafkaClient
  readonly #maxBatchBytes: number
  readonly #lanes = new Map<string, Lane>()
  readonly #running = new Set<Promise<void>>()
  #shared: Shared | undefined
  #closed = false

  constructor(client: KafkaClient, maxBatchBytes: number) {
    this.#client = client
    this.#maxBatchBytes = maxBatchBytes
  }

  /**
   * Answers in the order of `records`. Rejects only if none of them was sent.
   * @throws IdemqError
   */
  async send(topic: string, records: readonly NewRecord[], signal: AbortSignal): Promise<Sent[]> {
    if (this.#closed) throw closedError()
    if (signal.aborted) throw aborted(signal, `send to topic '${topic}'`)
    const lane = this.#lanes.get(topic) ?? { waiting: [], busy: false }
    this.#lanes.set(topic, lane)
    const own: Waiting[] = []
    const answers = records.map(
      (record) => new Promise<Sent>((settle) => own.push({ record, size: sizeOf(record), sent: false, settle })),
    )
    lane.waiting.push(...own)
    const onAbort = (): void => {
      const error = aborted(signal, `send to topic '${topic}'`)
      for (const each of own) each.settle(each.sent ? unknown : { status: 'failed', error })
      lane.waiting.splice(0, lane.waiting.length, ...lane.waiting.filter((each) => !own.includes(each)))
    }
    signal.addEventListener('abort', onAbort)
    try {
      this.#pump(topic, lane)
      const sent = await Promise.all(answers)
      const [first] = sent
      // The broker or the topic as a whole: nothing left here.
      if (first?.status === 'failed' && !own.some((each) => each.sent)) throw first.error
      return sent
    } finally {
      signal.removeEventListener('abort', onAbort)
    }
  }

  /** Waits for what is under way. */
  async close(): Promise<void> {
    this.#closed = true
    for (const { waiting } of this.#lanes.values()) {
      for (const each of waiting.splice(0)) each.settle({ status: 'failed', error: closedError() })
    }
    await Promise.all(this.#running)
    if (this.#shared) await this.#shared.producer.close().catch(() => {})
  }

  #pump(topic: string, lane: Lane): void {
    if (lane.busy) return
    lane.busy = true
    const running = this.#drain(topic, lane).finally(() => {
      lane.busy = false
      this.#running.delete(running)
    })
    this.#running.add(running)
  }

  async #drain(topic: string, lane: Lane): Promise<void> {
    while (lane.waiting.length > 0) {
      let bytes = 0
      const fitting = lane.waiting.findIndex((each, i) => {
        bytes += each.size
        return i > 0 && (bytes > this.#maxBatchBytes || i >= maxBatchRecords)
      })
      await this.#sendBatch(topic, lane.waiting.splice(0, fitting < 0 ? lane.waiting.length : fitting))
    }
  }

  async #sendBatch(topic: string, batch: readonly Waiting[]): Promise<void> {
    const shared = this.#use()
    try {
      await shared.connecting
      for (const each of batch) each.sent = true
      const records = batch.map(({ record }) => record)
      await shared.producer.send(topic, records)
      for (const each of batch) each.settle(stored)
    } catch (thrown) {
      const error = thrown as IdemqError
      this.#retire(shared)
      if (error.code === 'BODY_TOO_LARGE' && batch.length > 1) {
        // The broker refused one of them, or all at once. The rest may be stored: a repeat is a duplicate, not a loss.
        for (const each of batch) await this.#sendBatch(topic, [each])
        return
      }
      const known = !batch[0]!.sent || refusesTopic(error) || (batch.length === 1 && isRefusal(error))
      if (known) for (const each of batch) each.sent = false
      for (const each of batch) each.settle(known ? { status: 'failed', error } : unknown)
    } finally {
      this.#release(shared)
    }
  }

  #use(): Shared {
    if (!this.#shared) {
      const producer = this.#client.producer()
      this.#shared = { producer, connecting: producer.connect(), users: 0, retired: false }
      this.#shared.connecting.catch(() => {})
    }
    this.#shared.users++
    return this.#shared
  }

  #retire(shared: Shared): void {
    shared.retired = true
    if (this.#shared === shared) this.#shared = undefined
  }

  #release(shared: Shared): void {
    shared.users--
    if (shared.retired && shared.users === 0) void shared.producer.close().catch(() => {})
  }
}

/** Whether the broker said of a single record that it did not store it. */
function isRefusal(error: IdemqError): boolean {
  const type = protocolError(error)
  return type === 'MESSAGE_TOO_LARGE' || type === 'RECORD_LIST_TOO_LARGE' || type === 'NOT_ENOUGH_REPLICAS'
}

function closedError(): IdemqError {
  return new IdemqError('CLOSED', 'the kafka driver is closed')
}
