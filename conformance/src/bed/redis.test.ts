import { connect, type Socket } from 'node:net'
import { performance } from 'node:perf_hooks'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { type BedProxy, type BedServer, bed } from './index.ts'

/** One inline command over a connection of its own; rejects where the connection ends or stays silent. */
function ask(endpoint: { host: string; port: number }, command: string, timeoutMs = 1_000): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket: Socket = connect(endpoint)
    const end = (settle: () => void): void => {
      socket.destroy()
      settle()
    }
    socket.setTimeout(timeoutMs, () => end(() => reject(new Error('silent'))))
    socket.once('error', (error: NodeJS.ErrnoException) => end(() => reject(new Error(error.code))))
    socket.once('close', () => reject(new Error('closed')))
    socket.once('connect', () => socket.write(`${command}\r\n`))
    socket.once('data', (data) => end(() => resolve(data.toString().trim())))
  })
}

describe.each(['redis', 'valkey'] as const)('%s in the bed', (name) => {
  let server: BedServer
  beforeAll(async () => {
    server = await bed(name)
  }, 300_000)
  afterAll(() => server?.stop())

  test('serves on loopback alone, as the version it stands for', async () => {
    expect(server.url).toBe(`redis://127.0.0.1:${server.port}`)
    expect(await server.exec([`${name}-server`, '--version'])).toMatch(/ v=8\./)
  })

  test('keeps its data and its port over a restart and over a kill', async () => {
    expect(await ask(server, 'SET kept 1')).toBe('+OK')
    await server.restart()
    expect(await ask(server, 'INCR kept')).toBe(':2')
    await server.kill()
    await expect(ask(server, 'PING')).rejects.toThrow(/ECONNREFUSED|ECONNRESET|closed/)
    await server.start()
    expect(await ask(server, 'INCR kept')).toBe(':3')
  })

  test('paused it is silent, unpaused it goes on', async () => {
    await server.pause()
    await expect(ask(server, 'PING', 300)).rejects.toThrow('silent')
    await server.unpause()
    expect(await ask(server, 'PING')).toBe('+PONG')
  })

  test('further arguments win', async () => {
    const small = await bed(name, { args: ['--maxmemory-policy', 'allkeys-lru'] })
    try {
      expect(await ask(small, 'CONFIG GET maxmemory-policy')).toContain('allkeys-lru')
    } finally {
      await small.stop()
    }
    await expect(ask(small, 'PING')).rejects.toThrow()
  })
})

describe('a proxy before a server', () => {
  let server: BedServer
  let proxy: BedProxy
  beforeAll(async () => {
    server = await bed('redis')
    proxy = await server.proxy()
  }, 300_000)
  afterEach(() => proxy.heal())
  afterAll(() => server?.stop())

  test('is a way of its own to the same server', async () => {
    expect(proxy.url).toBe(`redis://127.0.0.1:${proxy.port}`)
    expect(proxy.port).not.toBe(server.port)
    expect(await ask(proxy, 'SET through proxy')).toBe('+OK')
    expect(await ask(server, 'GET through')).toContain('proxy')
  })

  test('latency delays the answer', async () => {
    await proxy.latency(150)
    const startedAt = performance.now()
    expect(await ask(proxy, 'PING')).toBe('+PONG')
    expect(performance.now() - startedAt).toBeGreaterThanOrEqual(300)
    await proxy.heal()
  })

  test('reset ends connections with an error', async () => {
    await proxy.reset()
    await expect(ask(proxy, 'PING')).rejects.toThrow('ECONNRESET')
    await proxy.heal()
    expect(await ask(proxy, 'PING')).toBe('+PONG')
  })

  test('a black hole swallows the request', async () => {
    await proxy.blackHole()
    await expect(ask(proxy, 'SET swallowed 1', 300)).rejects.toThrow('silent')
    await proxy.heal()
    expect(await ask(server, 'EXISTS swallowed')).toBe(':0')
  })

  test('a lost answer leaves the work done', async () => {
    await proxy.loseAnswers()
    await expect(ask(proxy, 'SET done 1', 300)).rejects.toThrow('silent')
    await proxy.heal()
    expect(await ask(server, 'EXISTS done')).toBe(':1')
  })

  test('an answer can break off', async () => {
    await ask(server, `SET long ${'x'.repeat(2_000)}`)
    await proxy.breakAfter(100)
    const socket = connect(proxy)
    let received = 0
    socket.on('data', (data) => {
      received += data.length
    })
    const closed = new Promise((resolve) => socket.once('close', resolve))
    socket.write('GET long\r\n')
    await closed
    expect(received).toBe(100)
    await proxy.heal()
  })

  test('cut closes what is open and refuses what is new', async () => {
    const socket = connect(proxy)
    const closed = new Promise((resolve) => socket.once('close', resolve))
    await new Promise((resolve) => socket.once('data', resolve).write('PING\r\n'))
    await proxy.cut()
    await closed
    await expect(ask(proxy, 'PING')).rejects.toThrow(/ECONNREFUSED|ECONNRESET|closed/)
    await proxy.heal()
    expect(await ask(proxy, 'PING')).toBe('+PONG')
  })

  test('outlives a restart of the server behind it', async () => {
    await server.restart()
    expect(await ask(proxy, 'GET through')).toContain('proxy')
    await server.kill()
    await expect(ask(proxy, 'PING')).rejects.toThrow()
    await server.start()
    expect(await ask(proxy, 'PING')).toBe('+PONG')
  })
})
