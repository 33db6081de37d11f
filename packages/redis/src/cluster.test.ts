import { Cluster } from 'ioredis'
import { describe, expect, it, vi } from 'vitest'
import { message, newQueue, openReceiver, sendUnderCuts, signal, testServer, texts } from '../test/server.ts'
import { queueKey, streamKey } from './keys.ts'

const times = { leaseMs: 30_000, retentionMs: 60_000 }

/** One node with all slots: it refuses what would reach over slots as a large cluster does. */
describe.each(['redis', 'valkey'] as const)('a cluster of %s', async (name) => {
  const { server, admin, open } = await testServer(name, { args: ['--cluster-enabled', 'yes'] })
  await admin.config('SET', 'cluster-announce-ip', '127.0.0.1')
  await admin.call('CLUSTER', 'ADDSLOTSRANGE', 0, 16_383)
  await vi.waitUntil(async () => String(await admin.call('CLUSTER', 'INFO')).includes('cluster_state:ok'), {
    timeout: 10_000,
  })
  const address = { host: server.host, port: server.port }
  // The node knows only the address it has in its container.
  const cluster = (): Cluster => new Cluster([address], { natMap: () => address, lazyConnect: true })

  it('takes a job from end to end', async () => {
    const adapter = open({ client: cluster() })
    const { driver, inbox } = adapter
    const queue = newQueue()
    await driver.declare(queue, 'create', signal)
    await driver.declare({ ...queue, group: 'audit' }, 'create', signal)
    await inbox.prepare('create', signal)
    await driver.send({ name: queue.name }, [message('one'), message('later', { delayMs: 20 })], signal)
    const receiver = await openReceiver(adapter, queue)
    const got = [...(await receiver.receive(1, 5_000, signal)), ...(await receiver.receive(1, 5_000, signal))]
    expect(texts(got)).toEqual(['one', 'later'])
    expect((await receiver.extend(got, signal)).map(({ status }) => status)).toEqual(['settled', 'settled'])
    const requests = ['a', 'b', 'c'].map((scope) => {
      return { scope, key: queue.name, fingerprint: 'f', jobId: 'j', replay: 0, attempt: 1 }
    })
    const claims = await inbox.claim(requests, times, signal)
    expect(claims.map(({ status }) => status)).toEqual(['claimed', 'claimed', 'claimed'])
    await driver.sendDead(queue, [message('dead')], signal)
    const seen: string[] = []
    await driver.scanDead(
      queue,
      async ({ body }) => {
        seen.push(Buffer.from(body).toString())
        return 'remove'
      },
      signal,
    )
    expect(seen).toEqual(['dead'])
    const acks = got.map((delivery) => ({ delivery, outcome: 'ack' as const }))
    expect((await receiver.settle(acks, signal)).map(({ status }) => status)).toEqual(['settled', 'settled'])
    expect(await driver.stats({ ...queue, group: 'audit' }, signal)).toMatchObject({ ready: 1, delayed: 1 })
  })

  it('stores each copy once, though its client sends again by itself what a cut connection did not answer', async () => {
    const adapter = open({ client: cluster() })
    const queue = newQueue()
    await adapter.driver.declare(queue, 'create', signal)
    await sendUnderCuts(adapter, queue, admin)
    const stored = await admin.xrange(streamKey(queueKey('idemq', queue.name), queue.group), '-', '+')
    expect(stored.length).toBe(320)
    expect(new Set(stored.map(([, [copyId]]) => copyId)).size).toBe(stored.length)
  })

  it('stops a blocking read within its time, and strands nothing', async () => {
    const adapter = open({ client: cluster() })
    const queue = newQueue()
    await adapter.driver.declare(queue, 'create', signal)
    const receiver = await openReceiver(adapter, queue)
    const waiting = receiver.receive(1, 20_000, signal)
    await expect.poll(async () => String(await admin.client('LIST')).includes('cmd=xreadgroup')).toBe(true)
    await receiver.stop()
    expect(await waiting).toEqual([])
    await adapter.driver.send(queue, [message('next')], signal)
    expect(texts(await (await openReceiver(adapter, queue)).receive(1, 5_000, signal))).toEqual(['next'])
  })
})
