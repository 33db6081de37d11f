import type { Sent } from '@idemq/core'
import { describe, expect, it } from 'vitest'
import { message, newQueue, openReceiver, sendUnderCuts, signal, testServer, texts } from '../test/server.ts'
import { queueKey, streamKey } from './keys.ts'

describe.each(['redis', 'valkey'] as const)('on %s', async (name) => {
  const { admin, open, start } = await testServer(name)
  const streamOf = (queue: { name: string; group: string }): string =>
    streamKey(queueKey('idemq', queue.name), queue.group)

  it('keeps all keys of a queue in one slot of a cluster, and those of another prefix apart', async () => {
    const { adapter, queue } = await start({ prefix: 'shop:a' })
    await adapter.driver.send(queue, [message('ready'), message('later', { delayMs: 60_000 })], signal)
    await adapter.driver.sendDead(queue, [message('dead')], signal)
    const receiver = await openReceiver(adapter, queue)
    await receiver.extend(await receiver.receive(1, 1_000, signal), signal)
    const keys = await admin.keys(`*${queue.name}*`)
    expect(keys.length).toBeGreaterThan(6)
    const tag = `{${queue.name}}`
    expect(keys.filter((key) => !key.startsWith(`shop:a:${tag}`))).toEqual([])
    await expect(open().driver.declare(queue, 'check', signal)).rejects.toMatchObject({ code: 'QUEUE_MISSING' })
  })

  it("refuses a settle and an extend of who is no longer the owner, whatever Redis's own commands would do", async () => {
    const { adapter, queue } = await start()
    await adapter.driver.send(queue, [message('mine')], signal)
    const receiver = await openReceiver(adapter, queue)
    const [delivery] = await receiver.receive(1, 1_000, signal)
    const [[id]] = (await admin.xpending(streamOf(queue), 'idemq', '-', '+', 1)) as [[string]]
    await admin.xclaim(streamOf(queue), 'idemq', 'somebody.60000', 0, id)
    expect(await receiver.extend([delivery!], signal)).toEqual([{ status: 'lost' }])
    for (const outcome of ['ack', 'release'] as const) {
      expect(await receiver.settle([{ delivery: delivery!, outcome }], signal)).toEqual([{ status: 'lost' }])
    }
    const [[, owner]] = (await admin.xpending(streamOf(queue), 'idemq', '-', '+', 1)) as [[string, string]]
    expect(owner).toBe('somebody.60000')
    expect(await admin.xlen(streamOf(queue))).toBe(1)
  })

  it('refuses a settle and an extend of an earlier delivery to the same consumer: the count decides', async () => {
    const { adapter, queue } = await start()
    await adapter.driver.send(queue, [message('mine')], signal)
    const receiver = await openReceiver(adapter, queue)
    const [delivery] = await receiver.receive(1, 1_000, signal)
    const [[id, consumer]] = (await admin.xpending(streamOf(queue), 'idemq', '-', '+', 1)) as [[string, string]]
    await admin.xclaim(streamOf(queue), 'idemq', consumer, 0, id)
    expect(await receiver.extend([delivery!], signal)).toEqual([{ status: 'lost' }])
    expect(await receiver.settle([{ delivery: delivery!, outcome: 'ack' }], signal)).toEqual([{ status: 'lost' }])
    expect(await admin.xlen(streamOf(queue))).toBe(1)
  })

  it('gives every receiver a name of its own, and takes it away on close', async () => {
    const { adapter, queue } = await start()
    const receivers = [await openReceiver(adapter, queue), await openReceiver(adapter, queue)]
    await adapter.driver.send(queue, [message('a'), message('b')], signal)
    for (const receiver of receivers) await receiver.receive(1, 1_000, signal)
    const consumers = (await admin.xinfo('CONSUMERS', streamOf(queue), 'idemq')) as string[][]
    expect(new Set(consumers.map(([, consumer]) => consumer)).size).toBe(2)
    for (const receiver of receivers) await receiver.close()
    const left = (await admin.xinfo('CONSUMERS', streamOf(queue), 'idemq')) as string[][]
    expect(left.map(([, consumer]) => consumer)).toEqual(['-'])
  })

  it('stores each copy once, however often connections are cut while sends are under way', async () => {
    const { adapter, queue } = await start()
    expect(await sendUnderCuts(adapter, queue, admin)).toBeGreaterThan(0)
    const stored = await admin.xrange(streamOf(queue), '-', '+')
    expect(stored.length).toBe(320)
    expect(new Set(stored.map(([, [copyId]]) => copyId)).size).toBe(stored.length)
  })

  it('answers each of a batch for itself where memory runs out in the middle of it', async () => {
    const { adapter, queue } = await start()
    const used = Number(/used_memory:(\d+)/.exec(await admin.info('memory'))?.[1])
    const batch = Array.from({ length: 1_000 }, () => message('x'.repeat(8_000)))
    await admin.config('SET', 'maxmemory', used + 6_000_000)
    let sent: Sent[]
    try {
      sent = await adapter.driver.send(queue, batch, signal)
    } finally {
      await admin.config('SET', 'maxmemory', 0)
    }
    const isStored = sent.map(({ status }) => status === 'stored')
    expect(new Set(isStored)).toEqual(new Set([true, false]))
    for (const answer of sent) {
      if (answer.status !== 'stored') expect(answer).toMatchObject({ status: 'failed', error: { code: 'BROKER_FULL' } })
    }
    const copyIds = (await admin.xrange(streamOf(queue), '-', '+')).map(([, [copyId]]) => copyId)
    expect(copyIds).toEqual(batch.filter((_, i) => isStored[i]).map(({ copyId }) => copyId))
  })

  it('goes on after the server lost all its data: queue, group and scripts come back by themselves', async () => {
    const { adapter, queue } = await start()
    const receiver = await openReceiver(adapter, queue)
    await adapter.driver.send(queue, [message('before')], signal)
    const [held] = await receiver.receive(1, 1_000, signal)
    const waiting = receiver.receive(1, 10_000, signal)
    await admin.flushall()
    await admin.script('FLUSH')
    expect(await receiver.settle([{ delivery: held!, outcome: 'ack' }], signal)).toEqual([{ status: 'lost' }])
    expect(await adapter.driver.send({ name: queue.name }, [message('after')], signal)).toEqual([{ status: 'stored' }])
    expect(texts(await waiting)).toEqual(['after'])
  })

  it('loads its scripts again after a flush', async () => {
    const { adapter, queue } = await start()
    await adapter.driver.send(queue, [message('one')], signal)
    await admin.script('FLUSH')
    await adapter.driver.send(queue, [message('two')], signal)
    const receiver = await openReceiver(adapter, queue)
    await admin.script('FLUSH')
    const got = await receiver.receive(2, 1_000, signal)
    await admin.script('FLUSH')
    const acks = got.map((delivery) => ({ delivery, outcome: 'ack' as const }))
    expect(await receiver.settle(acks, signal)).toEqual([{ status: 'settled' }, { status: 'settled' }])
  })

  it('stops at once in the middle of a blocking read, and what comes next goes to others', async () => {
    const { adapter, queue } = await start()
    const receiver = await openReceiver(adapter, queue)
    const waiting = receiver.receive(1, 20_000, signal)
    await expect.poll(async () => String(await admin.client('LIST')).includes('cmd=xreadgroup')).toBe(true)
    const beforeMs = performance.now()
    await receiver.stop()
    expect(performance.now() - beforeMs).toBeLessThan(1_000)
    expect(await waiting).toEqual([])
    await adapter.driver.send(queue, [message('next')], signal)
    expect(texts(await (await openReceiver(adapter, queue)).receive(1, 1_000, signal))).toEqual(['next'])
  })

  it("puts a group's retry into its own stream, and a queue's message into those of all its groups", async () => {
    const { adapter, queue } = await start()
    const audit = { ...queue, group: 'audit' }
    await adapter.driver.declare(audit, 'create', signal)
    await adapter.driver.send(audit, [message('retry')], signal)
    expect([await admin.xlen(streamOf(queue)), await admin.xlen(streamOf(audit))]).toEqual([0, 1])
    await adapter.driver.send({ name: queue.name }, [message('fact')], signal)
    expect([await admin.xlen(streamOf(queue)), await admin.xlen(streamOf(audit))]).toEqual([1, 2])
  })

  it('gives what was sent before any group, also delayed, to the first group alone', async () => {
    const adapter = open()
    const queue = newQueue()
    await adapter.driver.declare({ name: queue.name }, 'create', signal)
    const copy = message('early')
    await adapter.driver.send({ name: queue.name }, [copy, message('later', { delayMs: 50 })], signal)
    await adapter.driver.declare(queue, 'create', signal)
    await adapter.driver.declare({ ...queue, group: 'second' }, 'create', signal)
    await adapter.driver.send({ ...queue }, [copy], signal)
    const receiver = await openReceiver(adapter, queue)
    const got = await receiver.receive(5, 1_000, signal)
    expect(texts([...got, ...(await receiver.receive(5, 1_000, signal))])).toEqual(['early', 'later'])
    const stats = await adapter.driver.stats({ ...queue, group: 'second' }, signal)
    expect(stats).toMatchObject({ ready: 0, delayed: 0 })
  })

  it('leaves nothing behind of what is done', async () => {
    const { adapter, queue } = await start()
    const receiver = await openReceiver(adapter, queue)
    await adapter.driver.send(queue, [message('a'), message('b', { delayMs: 10 })], signal)
    for (let left = 2; left > 0; ) {
      const got = await receiver.receive(5, 1_000, signal)
      await receiver.extend(got, signal)
      await receiver.settle(
        got.map((delivery) => ({ delivery, outcome: 'ack' })),
        signal,
      )
      left -= got.length
    }
    await adapter.driver.sendDead(queue, [message('dead')], signal)
    await adapter.driver.scanDead(queue, async () => 'remove', signal)
    const left = await admin.keys(`${queueKey('idemq', queue.name)}:g:*`)
    expect(left.map((key) => key.split(':').at(-1)).sort()).toEqual(['dead', 'state', 'stream'])
    expect(await admin.xlen(streamOf(queue))).toBe(0)
  })

  it('does not trip over entries that somebody else put into, or trimmed from, its stream', async () => {
    const { adapter, queue } = await start()
    const receiver = await openReceiver(adapter, queue, { leaseMs: 200 })
    await admin.xadd(streamOf(queue), '*', 'hello', 'world')
    await admin.xadd(streamOf(queue), '*', 'a', '1', 'b', '2')
    const foreign = await receiver.receive(2, 1_000, signal)
    expect(texts(foreign)).toEqual(['world', 'a1b2'])
    const acks = foreign.map((delivery) => ({ delivery, outcome: 'ack' as const }))
    expect(await receiver.settle(acks, signal)).toEqual([{ status: 'settled' }, { status: 'settled' }])
    await adapter.driver.send(queue, [message('gone')], signal)
    expect(texts(await receiver.receive(1, 1_000, signal))).toEqual(['gone'])
    await admin.xtrim(streamOf(queue), 'MAXLEN', 0)
    // The lease of what was trimmed runs out meanwhile, and there is nothing to deliver again.
    expect(await receiver.receive(1, 600, signal)).toEqual([])
    await adapter.driver.send(queue, [message('next')], signal)
    expect(texts(await receiver.receive(1, 1_000, signal))).toEqual(['next'])
  })
})
