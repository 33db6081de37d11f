/** A server in trouble that passes: calls say what it is and that they can be repeated, and core repeats them. */
import { randomBytes } from 'node:crypto'
import { byJobId, connect, defineJob, IdemqError, type IdemqEvent } from '@idemq/core'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { message, newQueue, signal, type TestServer, testServer, untilRefused } from './server.ts'

const request = { scope: 's', key: 'k', fingerprint: 'f', jobId: 'j', replay: 0, attempt: 1 }
const times = { leaseMs: 30_000, retentionMs: 60_000 }

interface Trouble {
  readonly code: string
  /** Every write is refused from now on, until what it answers is called. */
  begin(server: TestServer): Promise<() => Promise<void>>
}

const gone = '/data/gone'

const troubles: Readonly<Record<string, Trouble>> = {
  'out of memory (OOM)': {
    code: 'BROKER_FULL',
    async begin({ admin }) {
      await admin.config('SET', 'maxmemory', 1)
      return async () => void (await admin.config('SET', 'maxmemory', 0))
    },
  },
  'without a disk to write to (MISCONF)': {
    code: 'BROKER_FULL',
    async begin({ server, admin }) {
      await server.exec(['mkdir', '-p', gone])
      await admin.config('SET', 'appendonly', 'no')
      await admin.config('SET', 'save', '3600 1')
      await admin.config('SET', 'dir', gone)
      await server.exec(['rmdir', gone])
      await admin.call('BGSAVE')
      const saved = async (status: string): Promise<boolean> =>
        String(await admin.info('persistence')).includes(`rdb_last_bgsave_status:${status}`)
      await vi.waitUntil(() => saved('err'), { timeout: 10_000 })
      return async () => {
        await admin.config('SET', 'dir', '/data')
        await admin.call('BGSAVE')
        await vi.waitUntil(() => saved('ok'), { timeout: 10_000 })
      }
    },
  },
  'that became a replica (READONLY)': {
    code: 'BROKER_READ_ONLY',
    async begin({ admin }) {
      await admin.replicaof('127.0.0.1', 1)
      return async () => void (await admin.replicaof('NO', 'ONE'))
    },
  },
  'that lacks replicas (NOREPLICAS)': {
    code: 'BROKER_READ_ONLY',
    async begin({ admin }) {
      await admin.config('SET', 'min-replicas-to-write', 1)
      return async () => void (await admin.config('SET', 'min-replicas-to-write', 0))
    },
  },
  'that loads its data (LOADING)': {
    code: 'BROKER_BUSY',
    async begin({ admin }) {
      // Loading pauses for other clients after so many bytes, and these cannot be compressed.
      const filler = Array.from({ length: 100 }, (_, i) => [`filler:${i}`, randomBytes(300)]).flat()
      await admin.mset(...filler)
      await admin.config('SET', 'loading-process-events-interval-bytes', 1_024)
      await admin.config('SET', 'key-load-delay', 20_000)
      const loaded = admin.debug('RELOAD')
      await untilRefused(admin, 'LOADING')
      return async () => void (await loaded)
    },
  },
  'that runs a script without end (BUSY)': {
    code: 'BROKER_BUSY',
    async begin({ server, admin }) {
      await admin.config('SET', 'lua-time-limit', 50)
      const other = admin.duplicate()
      const endless = other.eval('while true do end', 0).catch((error: Error) => error)
      await untilRefused(admin, 'BUSY')
      return async () => {
        await server.exec([`${server.name}-cli`, 'SCRIPT', 'KILL'])
        expect(await endless).toBeInstanceOf(Error)
        other.disconnect()
      }
    },
  },
}

describe.each(['redis', 'valkey'] as const)('%s', (name) => {
  it.each(Object.keys(troubles))('%s: refused and to be repeated, then nothing is lost or twice', async (kind) => {
    const args = ['--enable-debug-command', 'yes', '--enable-protected-configs', 'yes', '--appendfsync', 'no']
    const server = await testServer(name, { args })
    const adapter = server.open()
    const mq = await connect(adapter, { sendTimeoutMs: 30_000 })
    onTestFinished(() => mq.close())
    const seen: IdemqEvent[] = []
    mq.on('trouble', (event) => seen.push(event))
    const queue = newQueue()
    const job = defineJob('numbered', { queue: queue.name, payload: numbers, idempotencyKey: byJobId })
    const handled: number[] = []
    let open = (): void => {}
    const gate = new Promise<void>((resolve) => {
      open = resolve
    })
    const worker = mq.worker({ concurrency: 4 }).handle(job, async (n) => {
      handled.push(n)
      await gate
    })
    await worker.start()
    await mq.enqueueMany(job, [0, 1, 2, 3, 4, 5, 6, 7])
    await vi.waitUntil(() => handled.length === 4, { timeout: 10_000 })

    const { code, begin } = troubles[kind]!
    const end = await begin(server)
    const refusal = { code, retryable: true }
    expect(await refusalOf(() => adapter.driver.send(queue, [message('x')], signal))).toMatchObject(refusal)
    expect(await refusalOf(() => adapter.driver.sendDead(queue, [message('x')], signal))).toMatchObject(refusal)
    if (kind !== 'out of memory (OOM)') {
      // Redis 7 and newer let the inbox go on without memory.
      expect(await refusalOf(() => adapter.inbox.claim([request], times, signal))).toMatchObject(refusal)
    }
    const later = mq.enqueue(job, 8)
    open()
    await end()
    await later
    await vi.waitUntil(() => handled.length >= 9, { timeout: 20_000 })
    await worker.stop()
    expect(handled.sort()).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8])
    expect(await adapter.driver.stats(queue, signal)).toMatchObject({ ready: 0, delayed: 0, inFlight: 0, dead: 0 })
    expect(seen.filter((event) => event.type === 'trouble' && !event.error.retryable)).toEqual([])
  })
})

/** A primary that steps down ends connections: what was under way is then unknown, and asked again. */
function refusalOf(call: () => Promise<unknown>): Promise<unknown> {
  return vi.waitUntil(
    () =>
      call().then(
        () => undefined,
        (error) => error instanceof IdemqError && error.code !== 'BROKER_UNAVAILABLE' && error,
      ),
    { timeout: 10_000 },
  )
}

const numbers: Parameters<typeof defineJob<number, number>>[1]['payload'] = {
  '~standard': {
    version: 1,
    vendor: 'test',
    validate: (value) => (typeof value === 'number' ? { value } : { issues: [{ message: 'must be a number' }] }),
  },
}
