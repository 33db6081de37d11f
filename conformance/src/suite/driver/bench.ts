/** The workbench of one driver case: connections, queue names and messages of its own, all given back at the end. */
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import type {
  Adapter,
  Capabilities,
  Delivery,
  Driver,
  OpenOptions,
  Outcome,
  Outgoing,
  QueueRef,
  Receiver,
  Settled,
  Target,
} from '@idemq/core'
import type { Case } from '../case.ts'
import { nowMs, pass, resolveScale, type Scale } from '../wait.ts'
import type { DriverHarness } from './harness.ts'

export type DriverCase = Case<DriverHarness, DriverBench>

/** A lease that no case outlives: what returns earlier did not return because of it. */
export const longLeaseMs = 60_000

export interface MessageOptions {
  readonly body?: Uint8Array | string
  readonly copyId?: string
  readonly partitionKey?: string
  readonly ordered?: boolean
  readonly delayMs?: number
}

export class DriverBench {
  readonly harness: DriverHarness
  readonly capabilities: Capabilities
  readonly scale: Required<Scale>
  readonly #abort = new AbortController()
  readonly #closers: (() => Promise<void>)[] = []

  constructor(harness: DriverHarness) {
    this.harness = harness
    this.capabilities = harness.capabilities
    this.scale = resolveScale(harness.scale)
  }

  /** Aborts only when the case is over. */
  get signal(): AbortSignal {
    return this.#abort.signal
  }

  /** Runs `close` when the case is over, last registered first. */
  onDispose(close: () => Promise<void>): void {
    this.#closers.push(close)
  }

  async dispose(): Promise<void> {
    const failures: unknown[] = []
    for (const close of this.#closers.reverse()) {
      try {
        await close()
      } catch (error) {
        failures.push(error)
      }
    }
    this.#abort.abort()
    if (failures.length > 0) throw failures[0]
  }

  async adapter(): Promise<Adapter> {
    const adapter = await this.harness.createAdapter()
    this.onDispose(async () => {
      await adapter.inbox?.close()
      await adapter.outbox?.close()
      await adapter.driver.close()
    })
    return adapter
  }

  async driver(): Promise<Driver> {
    return (await this.adapter()).driver
  }

  /** A queue name nobody has used. */
  queue(suffix = ''): QueueRef {
    return { name: `t-${randomUUID().slice(0, 13)}${suffix}`, group: 'default' }
  }

  async declared(driver: Driver, queue: QueueRef = this.queue()): Promise<QueueRef> {
    await driver.declare(queue, 'create', this.signal)
    return queue
  }

  /** One connection and one new queue: what most cases begin with. */
  async start(): Promise<{ driver: Driver; queue: QueueRef }> {
    const driver = await this.driver()
    return { driver, queue: await this.declared(driver) }
  }

  async open(driver: Driver, queue: QueueRef, options: Partial<OpenOptions> = {}): Promise<Receiver> {
    const receiver = await driver.open(
      queue,
      { maxUnsettled: 100, leaseMs: longLeaseMs, onLost: () => {}, ...options },
      this.signal,
    )
    if (receiver.fetch && this.harness.mount) this.onDispose(await this.harness.mount(queue, receiver.fetch))
    return receiver
  }

  /** Stores `messages` in batches the manifest allows and insists on `stored` for each. */
  async send(driver: Driver, target: Target, messages: readonly Outgoing[]): Promise<void> {
    for (const batch of this.batches(messages)) {
      const answers = await driver.send(target, batch, this.signal)
      assert.deepEqual(answers, batch.map(stored), `send to ${target.name}`)
    }
  }

  async sendDead(driver: Driver, queue: QueueRef, messages: readonly Outgoing[]): Promise<void> {
    for (const batch of this.batches(messages)) {
      const answers = await driver.sendDead(queue, batch, this.signal)
      assert.deepEqual(answers, batch.map(stored), `sendDead of ${queue.name}`)
    }
  }

  batches<T>(items: readonly T[]): T[][] {
    const size = this.capabilities.maxBatch
    const batches: T[][] = []
    for (let at = 0; at < items.length; at += size) batches.push(items.slice(at, at + size))
    return batches
  }

  /** Receives until there are `count`. One more than that, or fewer in time, is a failure. */
  async take(receiver: Receiver, count: number, withinMs: number = this.scale.eventuallyMs): Promise<Delivery[]> {
    const taken: Delivery[] = []
    const endMs = nowMs() + withinMs
    while (taken.length < count) {
      const max = Math.min(count - taken.length, this.capabilities.maxBatch)
      const got = await receiver.receive(max, Math.max(0, Math.min(1_000, endMs - nowMs())), this.signal)
      assert.ok(got.length <= max, `receive(${max}) returned ${got.length} deliveries`)
      taken.push(...got)
      if (taken.length < count && nowMs() >= endMs) {
        assert.fail(`waited ${withinMs} ms for ${count} deliveries, got ${taken.length}: ${inspectBodies(taken)}`)
      }
    }
    return taken
  }

  async takeOne(receiver: Receiver, withinMs?: number): Promise<Delivery> {
    const [delivery] = await this.take(receiver, 1, withinMs)
    return delivery as Delivery
  }

  /** Fails if anything is delivered for `forMs`. */
  async expectNothing(receiver: Receiver, forMs: number, why: string): Promise<void> {
    const endMs = nowMs() + forMs
    do {
      const got = await receiver.receive(this.capabilities.maxBatch, Math.max(0, endMs - nowMs()), this.signal)
      assert.deepEqual(got.map(text), [], why)
      // A receive may end early with nothing; it must not spin the test.
      if (nowMs() < endMs) await pass(5)
    } while (nowMs() < endMs)
  }

  async settle(receiver: Receiver, deliveries: readonly Delivery[], outcome: Outcome = 'ack'): Promise<void> {
    for (const batch of this.batches(deliveries)) {
      const answers = await receiver.settle(
        batch.map((delivery) => ({ delivery, outcome })),
        this.signal,
      )
      assert.deepEqual(
        statuses(answers),
        batch.map(() => 'settled'),
        `settle as ${outcome}: ${inspectBodies(batch)}`,
      )
    }
  }

  /** The status a single settle answers. */
  async settleOne(receiver: Receiver, delivery: Delivery, outcome: Outcome = 'ack'): Promise<Settled> {
    const answers = await receiver.settle([{ delivery, outcome }], this.signal)
    assert.equal(answers.length, 1, 'settle answers once for each delivery')
    return answers[0] as Settled
  }

  /**
   * What the death of a process looks like from the broker: leases run out by themselves; connections, group
   * memberships and requests end. Returns when the broker can know.
   */
  async abandon(adapter: Adapter): Promise<void> {
    if (this.harness.capabilities.returnsBy === 'lease') return
    if (this.harness.sever) await this.harness.sever(adapter)
    else await adapter.driver.close()
  }

  /** By when what a dead holder had must be back. */
  get returnedWithinMs(): number {
    const { leaseMs, toleranceMs, eventuallyMs } = this.scale
    return this.capabilities.returnsBy === 'lease' ? leaseMs + toleranceMs : eventuallyMs
  }

  /** The dead letters of `queue`, all kept. */
  async deadLetters(driver: Driver, queue: QueueRef): Promise<{ id: string; body: string }[]> {
    const seen: { id: string; body: string }[] = []
    const { complete } = await driver.scanDead(
      queue,
      async ({ id, body }) => {
        seen.push({ id, body: Buffer.from(body).toString() })
        return 'keep'
      },
      this.signal,
    )
    assert.equal(complete, true, 'a scan that nothing stopped reaches the end')
    return seen
  }
}

/** A message of its own; the text of its body defaults to its copyId. */
export function message(options: MessageOptions = {}): Outgoing {
  const jobId = randomUUID()
  const { copyId = `${jobId}.0.1.0`, body = copyId, partitionKey = jobId, ordered = false, delayMs = 0 } = options
  return { copyId, jobId, body: Buffer.from(body), partitionKey, ordered, delayMs }
}

export function messages(count: number, options: (index: number) => MessageOptions = () => ({})): Outgoing[] {
  return Array.from({ length: count }, (_, index) => message({ body: `message ${index}`, ...options(index) }))
}

const stored = (): { status: 'stored' } => ({ status: 'stored' })

export function text(item: { readonly body: Uint8Array }): string {
  return Buffer.from(item.body).toString()
}

export function texts(items: readonly { readonly body: Uint8Array }[]): string[] {
  return items.map(text)
}

export function sortedTexts(items: readonly { readonly body: Uint8Array }[]): string[] {
  return texts(items).sort()
}

export function statuses(answers: readonly { readonly status: string }[]): string[] {
  return answers.map((answer) => answer.status)
}

function inspectBodies(items: readonly { readonly body: Uint8Array }[]): string {
  const shown = items.slice(0, 10).map((item) => JSON.stringify(text(item).slice(0, 60)))
  return `[${shown.join(', ')}${items.length > 10 ? ', …' : ''}]`
}
