/**
 * Workers under random handlers, random stops and, in half of the runs, a broker and an inbox that fail, answer late or
 * lose their answers. Whatever the interleaving: every job ends exactly where it must, no key runs after it was
 * completed, and a worker that has nothing to do holds nothing.
 */
import { expect, it } from 'vitest'
import { z } from 'zod'
import {
  type AnyJob,
  type Circuit,
  circuitBreaker,
  type Driver,
  defineJob,
  fixed,
  IdemqError,
  type InboxStore,
  type JobContext,
  PermanentError,
  type Receiver,
  RetryAfterError,
  sleep,
  type Worker,
} from '../src/index.ts'
import { altered, during, openScene, type Scene } from './scene.ts'
import { type Random, randomOf, seed } from './seed.ts'

const maxAttempts = 4
const timeoutMs = 2_000
const graceMs = 500
const leaseMs = 3_000

type Payload = { key: string; variant: number }

/** What the test knows better than the code under test. */
class Oracle {
  /** By scope and key: the fingerprint completed. */
  readonly completed = new Map<string, string>()
  readonly wrong: string[] = []
  readonly running = new Map<string, number>()
  renewals = 0

  /** Starts that a circuit let through and that have not ended. */
  passes = 0

  count(circuit: Circuit): Circuit {
    return altered(circuit, {
      tryStart: (clock) => {
        const pass = circuit.tryStart(clock)
        if (!pass) return undefined
        this.passes++
        let ended = false
        return {
          end: (outcome, at) => {
            if (ended) this.wrong.push('a start ended twice for its circuit')
            ended = true
            this.passes--
            pass.end(outcome, at)
          },
        }
      },
    })
  }

  watch(inbox: InboxStore, fault: Faults): InboxStore {
    const fingerprints = new Map<string, string>()
    return altered(inbox, {
      claim: async (batch, times, signal) => {
        const answers = await fault.around('claim', () => inbox.claim(batch, times, signal))
        answers.forEach((answer, i) => {
          const { scope, key, fingerprint } = batch[i]!
          const id = `${scope} ${key}`
          if (answer.status !== 'claimed') return
          if (this.completed.has(id)) this.wrong.push(`${id} was claimed after its completion`)
          fingerprints.set(`${id} ${answer.token}`, fingerprint)
        })
        return answers
      },
      renew: async (batch, lease, signal) => {
        this.renewals += batch.length
        return fault.around('renew', () => inbox.renew(batch, lease, signal))
      },
      end: async (batch, retentionMs, signal) =>
        fault.around('end', async () => {
          const held = await inbox.end(batch, retentionMs, signal)
          batch.forEach(({ scope, key, token, state }, i) => {
            const id = `${scope} ${key}`
            if (held[i] !== 'held' || state !== 'completed') return
            if (this.completed.has(id)) this.wrong.push(`${id} was completed twice`)
            this.completed.set(id, fingerprints.get(`${id} ${token}`)!)
          })
          return held
        }),
      record: (batch, signal) => fault.around('record', () => inbox.record(batch, signal)),
    })
  }
}

/** Fails calls before they happen, after they happened, or makes them slow. Off until switched on. */
class Faults {
  on = false
  readonly #random: Random
  readonly #pause: (ms: number) => Promise<void>
  constructor(random: Random, pause: (ms: number) => Promise<void>) {
    this.#random = random
    this.#pause = pause
  }
  async around<T>(what: string, call: () => Promise<T>): Promise<T> {
    // Even where nothing fails, answers come in any order.
    for (let turns = this.#random.below(4); turns > 0; turns--) await Promise.resolve()
    if (!this.on || !this.#random.chance(0.15)) return call()
    const error = new IdemqError('BROKER_UNAVAILABLE', `${what}: connection reset`)
    switch (this.#random.below(3)) {
      case 0:
        throw error
      case 1:
        await call()
        throw error
      default:
        await this.#pause(this.#random.below(2_000))
        return call()
    }
  }
}

function shaky(driver: Driver, fault: Faults, random: Random): Driver {
  return altered(driver, {
    capabilities: { ...driver.capabilities, maxBatch: 7, maxDelayMs: 1_500 },
    send: (target, batch, signal) => fault.around('send', () => driver.send(target, batch, signal)),
    sendDead: (queue, batch, signal) => fault.around('sendDead', () => driver.sendDead(queue, batch, signal)),
    open: async (queue, options, signal) => {
      const receiver = await driver.open(queue, options, signal)
      return altered<Receiver>(receiver, {
        receive: (max, waitMs, s) =>
          fault.on && random.chance(0.05)
            ? Promise.reject(new IdemqError('BROKER_UNAVAILABLE', 'receive'))
            : receiver.receive(max, waitMs, s),
        settle: (batch, s) => fault.around('settle', () => receiver.settle(batch, s)),
        extend: (batch, s) => fault.around('extend', () => receiver.extend(batch, s)),
      })
    },
  })
}

/** One random run. */
async function run(runSeed: number, withFaults: boolean): Promise<string> {
  const random = randomOf(runSeed)
  const oracle = new Oracle()
  let fault!: Faults
  const scene = await openScene({
    driver: (driver, clock) => {
      fault = new Faults(random, (ms) => sleep(clock, ms))
      return shaky(driver, fault, random)
    },
    inbox: (inbox) => oracle.watch(inbox, fault),
  })
  const about = `seed ${runSeed}, faults ${withFaults}`
  const circuit = oracle.count(
    circuitBreaker({ name: 'dependency', windowCalls: 8, failureRatio: 0.7, cooldownMs: 700 }),
  )
  const jobs = ['one', 'two', 'three'].map((name, index) =>
    defineJob(name, {
      queue: 'work',
      payload: z.object({ key: z.string(), variant: z.number() }),
      idempotencyKey: ({ key }: Payload) => key,
      timeoutMs,
      retry: { maxAttempts, backoff: fixed(20 + random.below(600)) },
      storeResult: random.chance(0.5),
      ...(index < random.below(4) && { circuit }),
    }),
  )
  const snoozes = new Map<string, number>()

  const handler = (job: AnyJob) => async (payload: Payload, context: JobContext) => {
    const id = `default/${job.name} ${payload.key}`
    if (context.attempt > maxAttempts) oracle.wrong.push(`${id} started for the ${context.attempt}th time`)
    const others = oracle.running.get(id) ?? 0
    if (others > 0 && !withFaults) oracle.wrong.push(`${id} ran twice at once`)
    oracle.running.set(id, others + 1)
    const startedAtMs = scene.clock.monotonicMs()
    try {
      if (random.chance(0.3)) await context.step('effect', () => random.below(10))
      if (random.chance(0.6)) await sleep(scene.clock, random.below(400), context.signal)
      const dice = random.next()
      if (dice < 0.5) return { done: payload.key }
      if (dice < 0.7) throw new TypeError('transient')
      if (dice < 0.74) throw new PermanentError('permanent')
      if (dice < 0.78) throw new RetryAfterError(random.below(3_000))
      if (dice < 0.82) await sleep(scene.clock, timeoutMs + random.below(graceMs * 2), context.signal)
      // Deaf for a while, yet within the grace: nobody else may run it.
      else if (dice < 0.86) {
        const untilMs = startedAtMs + timeoutMs + random.below(graceMs - 1)
        await sleep(scene.clock, untilMs - scene.clock.monotonicMs())
      } else if (dice < 0.94 && (snoozes.get(context.id) ?? 0) < 3) {
        snoozes.set(context.id, (snoozes.get(context.id) ?? 0) + 1)
        context.snooze(random.below(900))
      }
      context.signal.throwIfAborted()
    } finally {
      oracle.running.set(id, oracle.running.get(id)! - 1)
    }
    return undefined
  }
  const newWorker = (): Worker => {
    const concurrency = 1 + random.below(8)
    const limits = { concurrency, prefetch: concurrency + random.below(20), graceMs, leaseMs, claimLeaseMs: leaseMs }
    const worker = scene.worker(limits)
    for (const job of jobs) worker.handle(job, handler(job))
    return worker
  }

  const enqueued = new Map<string, { id: string; payload: Payload }>()
  const enqueueSome = async (count: number): Promise<void> => {
    for (let i = 0; i < count; i++) {
      const job = random.pick(jobs)
      const payload = { key: `k${random.below(40)}`, variant: random.chance(0.95) ? 0 : 1 }
      const { jobId } = await during(
        scene.clock,
        scene.mq.enqueue(job, payload, {
          ...(random.chance(0.2) && { delayMs: random.below(4_000) }),
          ...(random.chance(0.3) && { orderingKey: `lane ${random.below(4)}` }),
        }),
      )
      enqueued.set(jobId, { id: `default/${job.name} ${payload.key}`, payload })
    }
  }

  let workers: Worker[] = []
  for (let round = 0; round < 5; round++) {
    while (workers.length < 1 + random.below(2)) {
      const worker = newWorker()
      await worker.start()
      workers.push(worker)
    }
    fault.on = withFaults
    await enqueueSome(5 + random.below(25))
    await scene.clock.advance(random.below(5_000))
    if (random.chance(0.6)) {
      const [stopped, ...rest] = workers
      workers = rest
      await during(scene.clock, stopped!.stop({ drainMs: random.below(1_500) }))
    }
  }
  // From here everything works: whatever is left must come to its end.
  fault.on = false
  if (workers.length === 0) {
    workers.push(newWorker())
    await workers[0]!.start()
  }
  await scene.drain('work', 3_600_000)
  await assertAccounts(scene, oracle, enqueued, withFaults, about)

  for (const worker of workers) await during(scene.clock, worker.stop())
  expect(oracle.passes, `${about}: starts that never ended`).toBe(0)
  const { renewals } = oracle
  await scene.clock.advance(60_000)
  expect(oracle.renewals, `${about}: claims are renewed after stop`).toBe(renewals)
  return `${enqueued.size} jobs, ${scene.of('started').length} starts`
}

async function assertAccounts(
  scene: Scene,
  oracle: Oracle,
  enqueued: ReadonlyMap<string, { id: string; payload: Payload }>,
  withFaults: boolean,
  about: string,
): Promise<void> {
  expect(oracle.wrong, about).toEqual([])
  const { stuck } = await scene.mq.status('work')
  expect(stuck, about).toEqual({ ready: 0, delayed: 0, inFlight: 0, runningHere: 0 })
  const letters = await scene.dead('work')
  const dead = new Map(letters.map((letter) => [letter.envelope!.job_id, letter]))
  const lost: string[] = []
  for (const [jobId, { id, payload }] of enqueued) {
    if (!dead.has(jobId) && !oracle.completed.has(id)) lost.push(`${jobId} ${id} ${JSON.stringify(payload)}`)
  }
  expect(lost, `${about}: lost`).toEqual([])
  for (const { envelope, reason } of letters) {
    expect(envelope!.attempt, about).toBeLessThanOrEqual(maxAttempts)
    if (reason === 'permanent') expect(envelope!.failures!.at(-1)!.class, about).toBe('permanent')
  }
  if (withFaults) return
  // Without faults every delivery ends once: as a success, as a duplicate, or among the dead.
  const ends = new Map<string, number>()
  for (const event of scene.events) {
    const jobId =
      event.type === 'succeeded' || event.type === 'deduplicated'
        ? event.jobId
        : event.type === 'dead_lettered'
          ? event.job!.jobId
          : undefined
    if (jobId) ends.set(jobId, (ends.get(jobId) ?? 0) + 1)
  }
  const twice = [...enqueued.keys()].filter((jobId) => ends.get(jobId) !== 1)
  expect(twice, `${about}: not ended exactly once`).toEqual([])
  expect(new Set(dead.keys()).size, about).toBe(letters.length)
}

it.each([false, true])(
  'keeps every promise in random runs (faults: %s)',
  async (withFaults) => {
    const uncaught: unknown[] = []
    const note = (error: unknown): void => void uncaught.push(error)
    process.on('uncaughtException', note).on('unhandledRejection', note)
    try {
      for (let i = 0; i < 40; i++) {
        await run(seed + i, withFaults)
        expect(uncaught, `seed ${seed + i}`).toEqual([])
      }
    } finally {
      process.off('uncaughtException', note).off('unhandledRejection', note)
    }
  },
  180_000,
)
