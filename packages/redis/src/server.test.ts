/** What the adapter finds out about a server, says about it, and makes of what newer ones know. */
import { describe, expect, it } from 'vitest'
import { message, newQueue, openReceiver, signal, testServer, texts, untilRefused } from '../test/server.ts'
import type { RedisWarning } from './server.ts'

const times = { leaseMs: 30_000, retentionMs: 60_000 }

describe.each(['redis', 'valkey'] as const)('settings of %s', async (name) => {
  const { admin, open } = await testServer(name)

  async function warningsWith(settings: Readonly<Record<string, string>>): Promise<RedisWarning[]> {
    for (const [setting, value] of Object.entries(settings)) await admin.config('SET', setting, value)
    const warnings: RedisWarning[] = []
    const { driver } = open({ onWarning: (warning) => warnings.push(warning) })
    for (let time = 0; time < 2; time++) await driver.declare(newQueue(), 'create', signal)
    return warnings
  }

  it('warns once of an eviction policy that deletes jobs, and of a server that keeps nothing', async () => {
    expect(await warningsWith({})).toEqual([])
    const evicting = await warningsWith({ 'maxmemory-policy': 'allkeys-lru' })
    expect(evicting).toMatchObject([{ code: 'IDEMQ_REDIS_EVICTION', message: expect.stringContaining('allkeys-lru') }])
    const forgetting = await warningsWith({ 'maxmemory-policy': 'noeviction', appendonly: 'no' })
    expect(forgetting).toMatchObject([
      { code: 'IDEMQ_REDIS_NOT_PERSISTENT', message: expect.stringContaining('nothing on disk') },
    ])
    const snapshots = await warningsWith({ save: '3600 1' })
    expect(snapshots).toMatchObject([{ message: expect.stringContaining('snapshots only') }])
    await warningsWith({ save: '', appendonly: 'yes' })
  })

  it("promises durability 'sync' only where every write is on disk before it is answered", async () => {
    const { driver, inbox } = open({ durability: 'sync' })
    await driver.declare(newQueue(), 'create', signal)
    await inbox.prepare('create', signal)
    await admin.config('SET', 'appendfsync', 'everysec')
    const other = open({ durability: 'sync' })
    const refusals = [
      () => other.driver.declare(newQueue(), 'create', signal),
      () => other.inbox.prepare('check', signal),
    ]
    for (const refused of refusals) {
      await expect(refused()).rejects.toMatchObject({
        code: 'QUEUE_MISMATCH',
        message: expect.stringContaining('appendfsync everysec'),
      })
    }
    await admin.config('SET', 'appendfsync', 'always')
  })
})

describe.each(['redis', 'valkey'] as const)('%s while it loads its data', async (name) => {
  const { admin, open } = await testServer(name, { args: ['--enable-debug-command', 'yes'] })

  it('is not judged by the settings it has meanwhile', async () => {
    // Every 1,024 commands it serves others.
    const commands = admin.pipeline()
    for (let i = 0; i < 20_000; i++) commands.incr('filler')
    await commands.exec()
    await admin.config('SET', 'key-load-delay', 100)
    const loading = admin.debug('LOADAOF')
    await untilRefused(admin, 'LOADING')
    const warnings: RedisWarning[] = []
    const { driver, inbox } = open({ durability: 'sync', onWarning: (warning) => warnings.push(warning) })
    const calls = [() => driver.declare(newQueue(), 'create', signal), () => inbox.prepare('create', signal)]
    for (const call of calls) await expect(call()).rejects.toMatchObject({ code: 'BROKER_BUSY', retryable: true })
    await loading
    await driver.declare(newQueue(), 'create', signal)
    await inbox.prepare('create', signal)
    expect(warnings).toEqual([])
  })
})

describe.each(['redis', 'valkey'] as const)('a full %s', async (name) => {
  const { admin, start } = await testServer(name)

  /** Any memory is more than this. */
  const fill = (): Promise<unknown> => admin.config('SET', 'maxmemory', 1)

  it('refuses new jobs with BROKER_FULL, and lets workers finish what is there', async () => {
    const { adapter, queue } = await start()
    const { driver, inbox } = adapter
    await driver.send(queue, [message('ready'), message('due', { delayMs: 1 })], signal)
    const receiver = await openReceiver(adapter, queue)
    await inbox.prepare('create', signal)
    await fill()
    try {
      await expect(driver.send(queue, [message('more')], signal)).rejects.toMatchObject({ code: 'BROKER_FULL' })
      const got = [...(await receiver.receive(1, 5_000, signal)), ...(await receiver.receive(1, 5_000, signal))]
      expect(texts(got).sort()).toEqual(['due', 'ready'])
      await receiver.extend(got, signal)
      const request = { scope: 's', key: queue.name, fingerprint: 'f', jobId: 'j', replay: 0, attempt: 1 }
      const [claim] = await inbox.claim([request], times, signal)
      if (claim?.status !== 'claimed') throw new Error(`answered ${claim?.status}`)
      const ref = { scope: 's', key: queue.name, token: claim.token }
      expect(await inbox.record([{ ...ref, step: 'a', result: '1' }], signal)).toEqual(['held'])
      const end = { ...ref, state: 'completed', floor: 1, free: false, holdMs: 0 } as const
      expect(await inbox.end([end], 60_000, signal)).toEqual(['held'])
      const acks = got.map((delivery) => ({ delivery, outcome: 'ack' as const }))
      expect(await receiver.settle(acks, signal)).toEqual([{ status: 'settled' }, { status: 'settled' }])
    } finally {
      await admin.config('SET', 'maxmemory', 0)
    }
    expect(await driver.send(queue, [message('again')], signal)).toEqual([{ status: 'stored' }])
  })

  it('without what newer servers know, delivers and removes still, but the inbox waits for room', async () => {
    const { adapter, queue } = await start({ baseline: true })
    const { driver, inbox } = adapter
    await driver.send(queue, [message('ready'), message('due', { delayMs: 1 })], signal)
    const receiver = await openReceiver(adapter, queue)
    const request = { scope: 's', key: queue.name, fingerprint: 'f', jobId: 'j', replay: 0, attempt: 1 }
    const [claim] = await inbox.claim([request], times, signal)
    if (claim?.status !== 'claimed') throw new Error(`answered ${claim?.status}`)
    const end = {
      scope: 's',
      key: queue.name,
      token: claim.token,
      state: 'completed',
      floor: 1,
      free: false,
      holdMs: 0,
    } as const
    await fill()
    try {
      const beforeMs = performance.now()
      const got = await receiver.receive(2, 5_000, signal)
      expect(texts(got)).toEqual(['ready'])
      expect(performance.now() - beforeMs).toBeLessThan(2_500)
      await expect(inbox.end([end], 60_000, signal)).rejects.toMatchObject({ code: 'BROKER_FULL', retryable: true })
      expect((await receiver.extend(got, signal)).map(({ status }) => status)).toEqual(['settled'])
      expect(await receiver.settle([{ delivery: got[0]!, outcome: 'ack' }], signal)).toEqual([{ status: 'settled' }])
    } finally {
      await admin.config('SET', 'maxmemory', 0)
    }
    expect(texts(await receiver.receive(1, 5_000, signal))).toEqual(['due'])
    expect(await inbox.end([end], 60_000, signal)).toEqual(['held'])
  })
})
