/** What is refused when a worker is set up, before anything is consumed. */
import { memory, memoryInbox } from '@idemq/memory'
import { beforeEach, expect, it } from 'vitest'
import {
  byJobId,
  type Capabilities,
  circuitBreaker,
  connect,
  type Driver,
  defineJob,
  exponential,
  fixed,
  IdemqError,
  type IdemqEvent,
  ManualClock,
  type Mq,
  noInbox,
  type OutboxStore,
  retryBudget,
  sleep,
  type Worker,
  type WorkerOptions,
} from '../src/index.ts'
import { altered, during, numberedJob } from './scene.ts'

const clock = new ManualClock()
let calls: string[]
beforeEach(() => {
  calls = []
})

/** A driver with other capabilities, which writes down that it was asked to declare or open. */
function brokerThat(capabilities: Partial<Capabilities> = {}): Driver {
  const { driver } = memory({ clock })
  return altered(driver, {
    name: 'broker',
    capabilities: { ...driver.capabilities, ...capabilities },
    declare: async (queue, mode, signal) => {
      calls.push(`declare ${queue.name}`)
      return driver.declare(queue, mode, signal)
    },
    open: async (queue, options, signal) => {
      calls.push(`open ${queue.name}`)
      return driver.open(queue, options, signal)
    },
  })
}

const mqOn = (capabilities: Partial<Capabilities> = {}): Promise<Mq> => connect(brokerThat(capabilities), { clock })

async function refusal(worker: Worker): Promise<{ code: string; message: string }> {
  const error = await worker.start().then(
    () => {
      throw new Error('it started')
    },
    (thrown: { code: string; message: string }) => thrown,
  )
  expect(calls).toEqual([])
  return error
}

const inbox = memoryInbox({ clock })
const business = numberedJob({ name: 'business', idempotencyKey: ({ n }) => `n ${n}` })
const plain = numberedJob()

it.each<[string, Partial<Capabilities>, WorkerOptions, (worker: Worker) => unknown, string, RegExp]>([
  ['no inbox', {}, {}, (w) => w.handle(plain, () => {}), 'INBOX_REQUIRED', /noInbox\(\)/],
  ['no handler', {}, { inbox }, () => {}, 'INVALID_OPTION', /no handler/],
  [
    'noInbox and a business key',
    {},
    { inbox: noInbox() },
    (w) => w.handle(business, () => {}),
    'UNSUPPORTED',
    /business has a business key/,
  ],
  [
    'noInbox and a broker that counts nothing',
    { counts: 'none' },
    { inbox: noInbox() },
    (w) => w.handle(plain, () => {}),
    'UNSUPPORTED',
    /unbounded/,
  ],
  [
    'a transaction the inbox does not have',
    {},
    { inbox },
    (w) => w.handleInTransaction(plain, () => {}),
    'UNSUPPORTED',
    /numbered is handled in a transaction/,
  ],
  [
    'a transaction without an inbox',
    {},
    { inbox: noInbox() },
    (w) => w.handleInTransaction(plain, () => {}),
    'UNSUPPORTED',
    /in a transaction/,
  ],
  [
    'a group on a broker without groups',
    { groups: false },
    { inbox, group: 'mail' },
    (w) => w.handle(plain, () => {}),
    'UNSUPPORTED',
    /no groups \('mail'\)/,
  ],
  [
    'a timeout beyond what the broker holds',
    { maxHoldMs: 14_999 },
    { inbox, graceMs: 5_000 },
    (w) => w.handle(plain, () => {}),
    'UNSUPPORTED',
    /15000 ms.*at most 14999 ms/,
  ],
  [
    'a timeout beyond a lease that cannot be extended',
    { canExtend: false },
    { inbox, graceMs: 5_000, leaseMs: 14_999 },
    (w) => w.handle(plain, () => {}),
    'UNSUPPORTED',
    /lease of 14999 ms cannot be extended/,
  ],
])('refuses %s', async (_, capabilities, options, register, code, message) => {
  const worker = (await mqOn(capabilities)).worker(options)
  register(worker)
  const error = await refusal(worker)
  expect(error).toMatchObject({ name: 'IdemqError', code })
  expect(error.message).toMatch(message)
})

it('starts where the same is within what the broker can', async () => {
  const mq = await mqOn({ maxHoldMs: 15_000, canExtend: false, counts: 'starts' })
  const worker = mq.worker({ inbox: noInbox(), graceMs: 5_000, leaseMs: 15_000 }).handle(plain, () => {})
  await worker.start()
  expect(calls).toEqual(['declare work', 'open work'])
  await worker.stop()
})

it('refuses a second handler of a job, and handlers after the start', async () => {
  const worker = (await mqOn()).worker({ inbox }).handle(plain, () => {})
  expect(() => worker.handle(plain, () => {})).toThrow(expect.objectContaining({ code: 'DUPLICATE_HANDLER' }))
  expect(() => worker.handleInTransaction(plain, () => {})).toThrow(
    expect.objectContaining({ code: 'DUPLICATE_HANDLER' }),
  )
  await worker.start()
  expect(() => worker.handle(business, () => {})).toThrow(expect.objectContaining({ code: 'CLOSED' }))
  await expect(worker.start()).rejects.toMatchObject({ code: 'CLOSED' })
  await worker.stop()
})

it('can be mended and started after a refusal', async () => {
  const worker = (await mqOn()).worker({ inbox })
  await refusal(worker)
  await worker.handle(plain, () => {}).start()
  await worker.stop()
})

it.each<[WorkerOptions, RegExp]>([
  [{ concurrency: 0 }, /concurrency/],
  [{ concurrency: 1.5 }, /concurrency/],
  [{ concurrency: Number.NaN }, /concurrency/],
  [{ prefetch: 9 }, /prefetch is 9, must be at least concurrency \(10\)/],
  [{ leaseMs: 0 }, /leaseMs/],
  [{ claimLeaseMs: -1 }, /claimLeaseMs/],
  [{ graceMs: Number.NaN }, /graceMs/],
  [{ retentionMs: 0 }, /retentionMs/],
  [{ group: '' }, /group/],
  [{ group: 'a/b' }, /group/],
])('refuses the worker option %j', async (options, message) => {
  const mq = await mqOn()
  expect(() => mq.worker(options)).toThrow(expect.objectContaining({ code: 'INVALID_OPTION' }))
  expect(() => mq.worker(options)).toThrow(message)
})

it('takes an option that is undefined for one that is not given', async () => {
  const mq = await mqOn()
  const worker = mq.worker({ inbox, prefetch: undefined, leaseMs: undefined, group: undefined } as object)
  await worker.handle(plain, () => {}).start()
  await worker.stop()
})

it('closes what it opened where a later queue cannot be opened, and says why', async () => {
  const { driver } = memory({ clock })
  const broken = altered(driver, {
    open: async (queue, options, signal) => {
      if (queue.name === 'two') throw Object.assign(new Error('refused'), { code: 'ECONNREFUSED' })
      return driver.open(queue, options, signal)
    },
  })
  const mq = await connect(broken, { clock })
  const one = numberedJob({ name: 'one', queue: 'one' })
  const worker = mq.worker({ inbox }).handle(one, () => {})
  worker.handle(numberedJob({ name: 'two', queue: 'two' }), () => {})
  await expect(during(clock, worker.start())).rejects.toThrow('refused')
  await mq.enqueue(one, { n: 1 })
  await clock.advance(10_000)
  expect(await driver.stats({ name: 'one', group: 'default' }, AbortSignal.timeout(100))).toMatchObject({ ready: 1 })
})

it("has 'check' find what is missing, before anything is consumed", async () => {
  const { driver, inbox: natural } = memory({ clock })
  const mq = await connect({ driver, inbox: natural! }, { clock, declare: 'check' })
  await expect(mq.enqueue(plain, { n: 1 })).rejects.toMatchObject({ code: 'QUEUE_MISSING' })
  const worker = mq.worker().handle(plain, () => {})
  await expect(worker.start()).rejects.toMatchObject({ code: 'QUEUE_MISSING' })
})

it('warns of what it can foresee: weak durability, backoff beyond retention, an inbox that forgets too early', async () => {
  const mq = await mqOn({ durability: 'async', retentionMs: 60_000 })
  const warnings: string[] = []
  mq.on('warning', ({ message }: IdemqEvent & { message: string }) => warnings.push(message))
  const worker = mq.worker({ inbox, retentionMs: 1_000 })
  worker.handle(numberedJob({ retry: { backoff: fixed(120_000) } }), () => {})
  await worker.start()
  await worker.stop()
  expect(warnings).toHaveLength(3)
  expect(warnings[0]).toContain('loses power')
  expect(warnings[1]).toContain("outlives the broker's retention of 60000 ms")
  expect(warnings[2]).toContain('the inbox forgets after 1000 ms')
})

it.each<[string, () => unknown, RegExp]>([
  ['a job without a name', () => numberedJob({ name: '' }), /the name must have 1 to 255/],
  ['a name with NUL', () => numberedJob({ name: 'a\0' }), /the name must have/],
  ['a queue with a slash', () => numberedJob({ queue: 'a/b' }), /queue 'a\/b'/],
  ['a queue that begins with a dot', () => numberedJob({ queue: '.q' }), /queue '\.q'/],
  ['a queue of 101 letters', () => numberedJob({ queue: 'q'.repeat(101) }), /1 to 100/],
  ['no schema', () => numberedJob({ payload: {} as never }), /Standard Schema/],
  ['no idempotency key', () => numberedJob({ idempotencyKey: undefined as never }), /byJobId/],
  ['timeoutMs 0', () => numberedJob({ timeoutMs: 0 }), /timeoutMs is 0/],
  ['timeoutMs NaN', () => numberedJob({ timeoutMs: Number.NaN }), /timeoutMs/],
  ['maxAttempts 0', () => numberedJob({ retry: { maxAttempts: 0 } }), /maxAttempts is 0/],
  ['maxAttempts 1.5', () => numberedJob({ retry: { maxAttempts: 1.5 } }), /maxAttempts/],
  ['maxAttempts Infinity', () => numberedJob({ retry: { maxAttempts: Number.POSITIVE_INFINITY } }), /maxAttempts/],
  ['a backoff without end', () => exponential({ baseMs: 1, maxMs: Number.POSITIVE_INFINITY }), /exponential/],
  ['a backoff from 0', () => exponential({ baseMs: 0, maxMs: 10 }), /exponential/],
  ['a cap below the base', () => exponential({ baseMs: 10, maxMs: 9 }), /exponential/],
  ['a shrinking backoff', () => exponential({ baseMs: 10, maxMs: 90, factor: 0.5 }), /exponential/],
  ['a floor above the base', () => exponential({ baseMs: 10, maxMs: 90, minMs: 11 }), /exponential/],
  ['a negative fixed backoff', () => fixed(-1), /fixed\(-1\)/],
  ['a fixed backoff without end', () => fixed(Number.POSITIVE_INFINITY), /fixed/],
  ['a budget above all traffic', () => retryBudget({ ratio: 1.1 }), /retryBudget/],
  ['a negative budget', () => retryBudget({ minPerSecond: -1 }), /retryBudget/],
  ['a circuit that opens for nothing', () => circuitBreaker({ name: 'c', failureRatio: 0 }), /circuitBreaker\('c'\)/],
  ['a circuit that never opens', () => circuitBreaker({ name: 'c', failureRatio: 1 }), /failureRatio/],
  ['a circuit without a window', () => circuitBreaker({ name: 'c', windowCalls: 0 }), /windowCalls/],
  ['a circuit without a cooldown', () => circuitBreaker({ name: 'c', cooldownMs: 0 }), /cooldownMs/],
])('refuses the definition: %s', (_, define, message) => {
  expect(define).toThrow(expect.objectContaining({ name: 'IdemqError', code: 'INVALID_OPTION' }))
  expect(define).toThrow(message)
})

it('freezes a job and fills in its defaults', () => {
  const job = defineJob('least', { queue: 'q', payload: plain.payload, idempotencyKey: byJobId })
  expect(job).toMatchObject({ timeoutMs: 30_000, maxAttempts: 5, storeResult: false, circuit: undefined })
  expect(job.backoff.maxMs).toBe(900_000)
  expect(Object.isFrozen(job)).toBe(true)
})

it('a broker that is away for a moment while it opens the queue, or an outbox while it is prepared, delays the start', async () => {
  const away = (times: number): (() => void) => {
    return () => {
      if (times-- > 0) throw new IdemqError('BROKER_UNAVAILABLE', 'restarting')
    }
  }
  const { driver } = memory({ clock })
  const opening = away(2)
  const mq = await connect(
    altered(driver, {
      open: async (queue, options, signal) => {
        opening()
        return driver.open(queue, options, signal)
      },
    }),
    { clock },
  )
  const worker = mq.worker({ inbox }).handle(business, () => {})
  await during(clock, worker.start())

  const preparing = away(2)
  const outbox: OutboxStore = {
    name: 'outbox',
    prepare: async () => preparing(),
    insert: async () => {},
    claim: async () => [],
    markSent: async () => {},
    wait: (waitMs, signal) => sleep(clock, waitMs, signal),
    stats: async () => ({ pending: 0 }),
    close: async () => {},
  }
  const relay = mq.relay({ outbox })
  await during(clock, relay.start())
  await during(clock, mq.close())
})
