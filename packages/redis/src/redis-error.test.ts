import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { createServer } from 'node:tls'
import { type Delivery, IdemqError } from '@idemq/core'
import { afterEach, describe, expect, it, onTestFinished, vi } from 'vitest'
import { closing, message, newQueue, openReceiver, signal, testServer, texts } from '../test/server.ts'
import { redis } from './options.ts'

const request = { scope: 's', key: 'k', fingerprint: 'f', jobId: 'j', replay: 0, attempt: 1 }
const times = { leaseMs: 1_000, retentionMs: 1_000 }

async function codeOf(work: Promise<unknown>): Promise<string> {
  const error = await work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  )
  expect(error).toBeInstanceOf(IdemqError)
  return (error as IdemqError).code
}

describe('credentials and databases', async () => {
  const { server, admin, open } = await testServer('redis')
  const readme = readFileSync(join(import.meta.dirname, '../README.md'), 'utf8')
  const listed = /```\n(\+evalsha[^`]+)```/.exec(readme)?.[1]?.trim().split(/\s+/) ?? []
  await admin.acl('SETUSER', 'idemq', 'on', '>secret', '~idemq:*', ...listed)
  const as = (url: string): string => server.url.replace('redis://', `redis://${url}@`)

  it.each(['idemq:wrong', 'nobody:secret'])('refuses %s with UNAUTHORIZED, and does not repeat it', async (user) => {
    const { driver, inbox } = open({ url: as(user) })
    expect(await codeOf(driver.declare(newQueue(), 'create', signal))).toBe('UNAUTHORIZED')
    expect(await codeOf(inbox.claim([request], times, signal))).toBe('UNAUTHORIZED')
    await expect(driver.stats(newQueue(), signal)).rejects.toThrow(
      expect.objectContaining({ message: expect.not.stringContaining(user.split(':')[1]!) }),
    )
  })

  it('works for a user with the rights that the README lists, who cannot ask for settings, and says so', async () => {
    await admin.acl('LOG', 'RESET')
    const warnings: string[] = []
    const adapter = open({ url: as('idemq:secret'), onWarning: ({ code }) => warnings.push(code) })
    const { driver, inbox } = adapter
    const queue = newQueue()
    await driver.declare(queue, 'create', signal)
    expect(warnings).toEqual(['IDEMQ_REDIS_UNKNOWN_SETTINGS'])
    const receiver = await openReceiver(adapter, queue)
    for (const [text, delayMs] of [
      ['one', 0],
      ['two', 20],
    ] as const) {
      await driver.send(queue, [message(text, { delayMs })], signal)
      const got = await receiver.receive(1, 5_000, signal)
      expect(texts(got)).toEqual([text])
      await receiver.extend(got, signal)
      await receiver.settle([{ delivery: got[0]!, outcome: 'release' }], signal)
      const again = await receiver.receive(1, 5_000, signal)
      await receiver.settle([{ delivery: again[0]!, outcome: 'ack' }], signal)
    }
    await driver.sendDead(queue, [message('dead')], signal)
    expect(await driver.stats(queue, signal)).toMatchObject({ ready: 0, inFlight: 0, dead: 1 })
    expect(await driver.scanDead(queue, async () => 'remove', signal)).toEqual({ complete: true })
    const [claim] = await inbox.claim([request], times, signal)
    if (claim?.status !== 'claimed') throw new Error(`answered ${claim?.status}`)
    const ref = { scope: 's', key: 'k', token: claim.token }
    await inbox.record([{ ...ref, step: 'a', result: '1' }], signal)
    await inbox.end([{ ...ref, state: 'released', floor: 1, free: false, holdMs: 0 }], 60_000, signal)
    expect(await inbox.claim([request], times, signal)).toMatchObject([{ status: 'claimed', steps: { a: '1' } }])
    await receiver.stop()
    const logged = (await admin.acl('LOG')) as unknown as string[][]
    const refused = logged.map((entry) => entry[entry.indexOf('object') + 1])
    expect(
      refused.filter((name) => !['info', 'config|get', 'config', 'client|setinfo', 'client'].includes(name!)),
    ).toEqual([])
    const other = open({ url: as('idemq:secret'), prefix: 'forbidden' })
    expect(await codeOf(other.driver.declare(queue, 'create', signal))).toBe('UNAUTHORIZED')
  })

  it.each(['evalsha', 'xadd', 'xreadgroup', 'xpending', 'xack', 'sadd', 'smismember'])(
    'answers UNAUTHORIZED where %s is taken away, changes nothing then, and goes on once it is given back',
    async (command) => {
      const adapter = open({ url: as('idemq:secret') })
      const { driver } = adapter
      const queue = newQueue()
      await driver.declare(queue, 'create', signal)
      const receiver = await openReceiver(adapter, queue)
      await driver.send(queue, [message('one')], signal)
      const [one] = await receiver.receive(1, 5_000, signal)
      const copy = message('two')
      const held: Delivery[] = []
      const calls = {
        send: () => driver.send(queue, [copy], signal),
        receive: async () => void held.push(...(await receiver.receive(1, 100, signal))),
        settle: () => receiver.settle([{ delivery: one!, outcome: 'ack' }], signal),
      }
      const refused: string[] = []
      await admin.acl('SETUSER', 'idemq', `-${command}`)
      try {
        for (const [name, call] of Object.entries(calls)) {
          const error = await call().catch((thrown: unknown) => thrown)
          if (!(error instanceof IdemqError)) continue
          expect(error).toMatchObject({ code: 'UNAUTHORIZED', retryable: false })
          refused.push(name)
        }
      } finally {
        await admin.acl('SETUSER', 'idemq', `+${command}`)
      }
      expect(refused).not.toEqual([])
      if (refused.includes('settle')) await calls.settle()
      expect(await calls.send()).toEqual([{ status: 'stored' }])
      await vi.waitUntil(async () => {
        // What a refused read threw in the meantime comes first.
        await calls.receive().catch((error: IdemqError) => expect(error.code).toBe('UNAUTHORIZED'))
        return held.length > 0
      })
      // Twice at most, where it was stored and could not be remembered.
      await calls.receive()
      expect(new Set(texts(held))).toEqual(new Set(['two']))
      expect(
        await receiver.settle(
          held.map((delivery) => ({ delivery, outcome: 'ack' })),
          signal,
        ),
      ).toEqual(held.map(() => ({ status: 'settled' })))
      expect(await driver.stats(queue, signal)).toMatchObject({ ready: 0, inFlight: 0 })
    },
  )

  it('refuses a database that is not there with INVALID_OPTION, and never uses another', async () => {
    const { driver, inbox } = open({ url: `${server.url}/99` })
    const queue = newQueue()
    expect(await codeOf(driver.declare(queue, 'create', signal))).toBe('INVALID_OPTION')
    expect(await codeOf(driver.send(queue, [message('x')], signal))).toBe('INVALID_OPTION')
    expect(await codeOf(inbox.claim([request], times, signal))).toBe('INVALID_OPTION')
    expect(await admin.keys(`*${queue.name}*`)).toEqual([])
  })

  it('answers BROKER_UNAVAILABLE and speaks of TLS where the server has none', async () => {
    const { driver } = open({ url: server.url.replace('redis:', 'rediss:'), answerTimeoutMs: 1_000 })
    const error = await driver.declare(newQueue(), 'create', signal).catch((thrown: IdemqError) => thrown)
    expect(error).toMatchObject({ code: 'BROKER_UNAVAILABLE', retryable: true })
    expect((error as IdemqError).message).toContain('rediss: is for servers with TLS')
  })

  it('answers BROKER_UNAVAILABLE and speaks of TLS where the server has nothing else', async () => {
    const tls = createServer()
    tls.on('tlsClientError', () => {})
    tls.listen(0, '127.0.0.1')
    await once(tls, 'listening')
    onTestFinished(() => void tls.close())
    const { driver } = open({ url: `redis://127.0.0.1:${(tls.address() as AddressInfo).port}`, answerTimeoutMs: 1_000 })
    const error = await driver.declare(newQueue(), 'create', signal).catch((thrown: IdemqError) => thrown)
    expect(error).toMatchObject({ code: 'BROKER_UNAVAILABLE', retryable: true })
    expect((error as IdemqError).message).toContain('redis: for those without')
  })

  it('answers QUEUE_MISMATCH where a key is something else', async () => {
    const { driver } = open()
    const queue = newQueue()
    await admin.set(`idemq:{${queue.name}}`, 'a text')
    expect(await codeOf(driver.declare(queue, 'create', signal))).toBe('QUEUE_MISMATCH')
  })
})

it('answers BROKER_UNAVAILABLE where nobody listens', async () => {
  const { driver, inbox } = closing(redis('redis://127.0.0.1:1'))
  expect(await codeOf(driver.declare(newQueue(), 'create', signal))).toBe('BROKER_UNAVAILABLE')
  expect(await codeOf(driver.send(newQueue(), [message('x')], signal))).toBe('BROKER_UNAVAILABLE')
  expect(await codeOf(inbox.claim([request], times, signal))).toBe('BROKER_UNAVAILABLE')
})

describe('a replica', async () => {
  const { admin, open, start } = await testServer('redis')

  it('answers BROKER_READ_ONLY to all that writes, and the same adapter goes on when it is primary again', async () => {
    const { adapter, queue } = await start()
    await adapter.driver.send(queue, [message('before')], signal)
    const receiver = await openReceiver(adapter, queue)
    await admin.replicaof('127.0.0.1', 1)
    try {
      await expect.poll(() => codeOf(adapter.driver.send(queue, [message('x')], signal))).toBe('BROKER_READ_ONLY')
      expect(await codeOf(open().inbox.claim([request], times, signal))).toBe('BROKER_READ_ONLY')
    } finally {
      await admin.replicaof('NO', 'ONE')
    }
    await expect.poll(() => receiver.receive(1, 200, signal).catch(() => []), { timeout: 10_000 }).toHaveLength(1)
  })
})

describe('the network', async () => {
  const { server, admin, start } = await testServer('redis')
  const proxy = await server.proxy()
  afterEach(() => proxy.heal())

  it('says unknown of a send whose answer was lost, and a copy sent again is stored once', async () => {
    const { adapter, queue } = await start({ url: proxy.url, answerTimeoutMs: 500 })
    const copy = message('once')
    await adapter.driver.send(queue, [message('warm')], signal)
    await proxy.loseAnswers()
    expect(await adapter.driver.send(queue, [copy], signal)).toEqual([{ status: 'unknown' }])
    await proxy.heal()
    await expect
      .poll(() => adapter.driver.send(queue, [copy], signal).catch(() => []), { timeout: 10_000 })
      .toEqual([{ status: 'stored' }])
    expect(await admin.xlen(`idemq:{${queue.name}}:g:default:stream`)).toBe(2)
  })

  it('notices a network that swallows everything, also under a blocking read, and comes back with it', async () => {
    const { adapter, queue } = await start({ url: proxy.url, answerTimeoutMs: 500 })
    const receiver = await openReceiver(adapter, queue)
    const waiting = codeOf(receiver.receive(1, 20_000, signal))
    await expect.poll(async () => String(await admin.client('LIST')).includes('cmd=xreadgroup')).toBe(true)
    await proxy.blackHole()
    expect(await waiting).toBe('BROKER_UNAVAILABLE')
    await proxy.heal()
    await expect
      .poll(() => adapter.driver.send(queue, [message('back')], signal).catch(() => []), { timeout: 10_000 })
      .toEqual([{ status: 'stored' }])
    await expect.poll(() => receiver.receive(1, 200, signal).catch(() => []), { timeout: 10_000 }).toHaveLength(1)
  })

  it('gives up at once when the caller does, while nothing answers', async () => {
    const { adapter, queue } = await start({ url: proxy.url, answerTimeoutMs: 2_000 })
    await proxy.blackHole()
    const abort = new AbortController()
    const stats = codeOf(adapter.driver.stats(queue, abort.signal))
    const sent = adapter.driver.send(queue, [message('x')], abort.signal)
    abort.abort()
    expect(await stats).toBe('ABORTED')
    expect(await sent).toEqual([{ status: 'unknown' }])
  })
})
