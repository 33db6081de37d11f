import { afterAll, beforeAll, expect, test } from 'vitest'
import { type BedServer, bed, servers } from './index.ts'
import { answers } from './probe.ts'

let server: BedServer
beforeAll(async () => {
  server = await bed('postgres')
}, 300_000)
afterAll(() => server?.stop())

const sql = (statement: string): Promise<string> =>
  server.exec(['psql', '-U', 'postgres', '-qtA', '-v', 'ON_ERROR_STOP=1', '-c', statement])

const reachable = (endpoint: { host: string; port: number }): Promise<boolean> =>
  answers(endpoint.host, endpoint.port, servers.postgres.probe, 500)

test('serves on loopback alone, as the version it stands for, and flushes commits', async () => {
  expect(server.url).toBe(`postgres://postgres:idemq@127.0.0.1:${server.port}/postgres`)
  expect(await sql('SHOW server_version')).toMatch(/^17\./)
  expect(
    await sql("SELECT string_agg(setting, ' ') FROM pg_settings WHERE name IN ('fsync', 'synchronous_commit')"),
  ).toBe('on on\n')
})

test('keeps committed rows over a restart and over a kill', async () => {
  await sql('CREATE TABLE kept (n int)')
  await sql('INSERT INTO kept VALUES (1)')
  await server.restart()
  await sql('INSERT INTO kept VALUES (2)')
  await server.kill()
  expect(await reachable(server)).toBe(false)
  await server.start()
  expect(await sql('SELECT sum(n) FROM kept')).toBe('3\n')
})

test('paused it is silent, unpaused it goes on', async () => {
  await server.pause()
  expect(await reachable(server)).toBe(false)
  await server.unpause()
  expect(await reachable(server)).toBe(true)
})

test('a proxy before it can be cut and healed', async () => {
  const proxy = await server.proxy()
  expect(proxy.url).toBe(`postgres://postgres:idemq@127.0.0.1:${proxy.port}/postgres`)
  expect(await reachable(proxy)).toBe(true)
  await proxy.cut()
  expect(await reachable(proxy)).toBe(false)
  expect(await reachable(server)).toBe(true)
  await proxy.heal()
  expect(await reachable(proxy)).toBe(true)
})

test('a statement that fails rejects with what the server said', async () => {
  await expect(sql('SELECT * FROM missing')).rejects.toMatchObject({
    code: 'BROKER_UNAVAILABLE',
    message: expect.stringContaining('relation "missing" does not exist'),
  })
})
