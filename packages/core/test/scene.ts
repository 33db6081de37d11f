/** A queue under a clock that the test moves, with everything that happened on it. */
import { type MemoryOptions, memory } from '@idemq/memory'
import { onTestFinished } from 'vitest'
import { z } from 'zod'
import {
  byJobId,
  connect,
  type DeadLetter,
  type Driver,
  defineJob,
  type EventType,
  fixed,
  type IdemqEvent,
  type InboxStore,
  type Job,
  type JobOptions,
  ManualClock,
  type Mq,
  testQueue,
  type Worker,
  type WorkerOptions,
} from '../src/index.ts'

export type EventOf<T extends EventType> = Extract<IdemqEvent, { type: T }>

export interface Scene {
  readonly mq: Mq
  readonly clock: ManualClock
  readonly events: readonly IdemqEvent[]
  /** Events of one type so far. */
  of<T extends EventType>(type: T): EventOf<T>[]
  /** A worker that is stopped when the test ends. */
  worker(options?: WorkerOptions): Worker
  /** What is in the dead-letter queue. */
  dead(queue: string): Promise<DeadLetter[]>
  /** Moves the clock until nothing is queued, or for at most `maxMs`. */
  drain(queue: string, maxMs?: number): Promise<void>
}

export interface SceneOptions {
  /** Wraps the memory driver. */
  readonly driver?: (driver: Driver, clock: ManualClock) => Driver
  /** Wraps the memory inbox. */
  readonly inbox?: (inbox: InboxStore, clock: ManualClock) => InboxStore
  readonly memory?: MemoryOptions
}

/** `testQueue()`, or the same with parts of the adapter wrapped. Closed when the test ends. */
export async function openScene(options: SceneOptions = {}): Promise<Scene> {
  const { mq, clock, close } = await opened(options)
  const events: IdemqEvent[] = []
  mq.on('*', (event) => events.push(event))
  onTestFinished(close)
  return {
    mq,
    clock,
    events,
    of: <T extends EventType>(type: T) => events.filter((event): event is EventOf<T> => event.type === type),
    worker: (workerOptions) => mq.worker(workerOptions),
    async dead(queue) {
      const letters: DeadLetter[] = []
      for await (const letter of mq.deadLetters(queue).scan()) letters.push(letter)
      return letters
    },
    drain: (queue, maxMs) => drained(mq, clock, queue, maxMs),
  }
}

async function opened(options: SceneOptions): Promise<{ mq: Mq; clock: ManualClock; close: () => Promise<void> }> {
  if (!options.driver && !options.inbox && !options.memory) {
    const queue = await testQueue()
    return { mq: queue.mq, clock: queue.clock, close: () => queue.close() }
  }
  const clock = new ManualClock()
  const { driver, inbox } = memory({ clock, ...options.memory })
  const mq = await connect(
    {
      driver: options.driver ? options.driver(driver, clock) : driver,
      inbox: options.inbox ? options.inbox(inbox!, clock) : inbox!,
    },
    { clock },
  )
  return { mq, clock, close: () => during(clock, mq.close()) }
}

/** Moves the clock until `work` has ended. */
export async function during<T>(clock: ManualClock, work: Promise<T>): Promise<T> {
  let ended = false
  const end = (): void => {
    ended = true
  }
  work.then(end, end)
  await clock.advance(0)
  while (!ended) await clock.advance(500)
  return work
}

async function drained(mq: Mq, clock: ManualClock, queue: string, maxMs = 24 * 3_600_000): Promise<void> {
  const untilMs = clock.monotonicMs() + maxMs
  for (;;) {
    await clock.advance(0)
    const { stuck, next } = await mq.status(queue)
    if (!stuck.ready && !stuck.delayed && !stuck.inFlight) return
    const leftMs = untilMs - clock.monotonicMs()
    if (leftMs <= 0) return
    const stepMs = stuck.ready || stuck.inFlight ? 250 : (next.nextAttemptInMs ?? 250)
    await clock.advance(Math.min(leftMs, Math.max(1, stepMs)))
  }
}

/** A driver or store that behaves as another but for what is given; methods keep their `this`. */
export function altered<T extends object>(original: T, changes: Partial<T>): T {
  return new Proxy(original, {
    get(target, name) {
      if (Object.hasOwn(changes, name)) return changes[name as keyof T]
      const value = target[name as keyof T]
      return typeof value === 'function' ? value.bind(target) : value
    },
    has: (target, name) => Object.hasOwn(changes, name) || name in target,
  })
}

export interface Numbered {
  readonly n: number
}

/** A job whose payload is `{ n }`, without a business key, tried three times a second apart; `options` change that. */
export function numberedJob(options: Partial<JobOptions<Numbered, Numbered>> & { name?: string } = {}): Job<Numbered> {
  const { name = 'numbered', ...rest } = options
  return defineJob<Numbered, Numbered>(name, {
    queue: 'work',
    payload: z.object({ n: z.number() }),
    idempotencyKey: byJobId,
    timeoutMs: 10_000,
    retry: { maxAttempts: 3, backoff: fixed(1_000) },
    ...rest,
  })
}

/** A promise and what settles it. */
export function gate<T = void>(): { opened: Promise<T>; open: (value: T) => void; fail: (error: unknown) => void } {
  const { promise, resolve, reject } = Promise.withResolvers<T>()
  return { opened: promise, open: resolve, fail: reject }
}
