import { rmSync } from 'node:fs'
import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { type Behaviour, wellBehaved } from './behaviour.ts'
import type { Charge } from './ledger.ts'
import { type Provider, type ProviderStats, startProvider } from './provider.ts'

const request = { orderId: 'order-1', amountCents: 790, card: 'card_ok_1' }
const declinedRequest = { orderId: 'order-2', amountCents: 790, card: 'card_expired_2' }

let directory: string
let provider: Provider

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'idemq-provider-'))
})
afterEach(async () => {
  await provider.close()
  rmSync(directory, { recursive: true })
})

async function start(behaviour: Behaviour = wellBehaved): Promise<void> {
  provider = await startProvider({ ledgerPath: join(directory, 'ledger.db'), behaviour })
}

function post(path: string, body: unknown, headers: Record<string, string> = {}): Promise<Response> {
  return fetch(`${provider.url}${path}`, { method: 'POST', headers, body: JSON.stringify(body) })
}

const charge = (body: unknown, key: string): Promise<Response> => post('/charges', body, { 'idempotency-key': key })

async function get<T>(path: string): Promise<T> {
  return (await fetch(`${provider.url}${path}`)).json() as Promise<T>
}

const charges = (): Promise<Charge[]> => get('/admin/charges')
const stats = (): Promise<ProviderStats> => get('/admin/stats')

test('the same key with the same request gets the same answer and charges once', async () => {
  await start()
  const first = await charge(request, 'k')
  expect(first.status).toBe(201)
  expect(first.headers.get('idempotent-replayed')).toBeNull()
  const second = await charge(request, 'k')
  expect(second.status).toBe(201)
  expect(second.headers.get('idempotent-replayed')).toBe('true')
  expect(await second.json()).toEqual(await first.json())
  expect(await charges()).toMatchObject([{ orderId: 'order-1', amountCents: 790, idempotencyKey: 'k' }])
})

test('the order of the fields does not make another request', async () => {
  await start()
  await charge(request, 'k')
  const { card, orderId, amountCents } = request
  expect((await charge({ card, amountCents, orderId }, 'k')).status).toBe(201)
})

test('another key charges again: the key alone is what tells calls apart', async () => {
  await start()
  await charge(request, 'k1')
  await charge(request, 'k2')
  expect(await charges()).toHaveLength(2)
})

test('a decline is an answer too, until the card is reissued', async () => {
  await start()
  for (let n = 0; n < 2; n++) expect((await charge(declinedRequest, 'k')).status).toBe(402)
  expect(await charges()).toEqual([])
  const reissued = await post('/admin/reissue-cards', {})
  expect(await reissued.json()).toEqual({ cards: 1 })
  expect((await charge(declinedRequest, 'k')).status).toBe(201)
  expect(await charges()).toHaveLength(1)
})

test('another request under a used key is refused with 422, after a charge, a decline and while running', async () => {
  await start({ ...wellBehaved, minMs: 300, maxMs: 300 })
  await charge(request, 'k')
  expect((await charge({ ...request, amountCents: 791 }, 'k')).status).toBe(422)
  await charge(declinedRequest, 'd')
  expect((await charge({ ...declinedRequest, card: 'card_ok_1' }, 'd')).status).toBe(422)
  const running = charge({ ...request, orderId: 'order-3' }, 'r')
  await until(async () => (await stats()).calls === 5)
  expect((await charge({ ...request, orderId: 'order-4' }, 'r')).status).toBe(422)
  expect((await running).status).toBe(201)
  expect((await charges()).map(({ orderId }) => orderId)).toEqual(['order-1', 'order-3'])
})

test('409 while a request with the key is running, and one charge of 20 at once', async () => {
  await start({ ...wellBehaved, minMs: 200, maxMs: 200 })
  const statuses = await Promise.all(Array.from({ length: 20 }, async () => (await charge(request, 'k')).status))
  expect(statuses.toSorted()).toEqual([201, ...Array<number>(19).fill(409)])
  expect(await charges()).toHaveLength(1)
})

test('a cut connection has charged once; the same key finds out', async () => {
  await start({ ...wellBehaved, cutShare: 1 })
  await expect(charge(request, 'k')).rejects.toThrow()
  expect(await charges()).toHaveLength(1)
  const again = await charge(request, 'k')
  expect(again.status).toBe(201)
  expect(again.headers.get('idempotent-replayed')).toBe('true')
  expect(await charges()).toHaveLength(1)
})

test('a caller that hangs up does not stop its charge', async () => {
  await start({ ...wellBehaved, minMs: 200, maxMs: 200 })
  const hangUp = new AbortController()
  const call = fetch(`${provider.url}/charges`, {
    method: 'POST',
    headers: { 'idempotency-key': 'k' },
    body: JSON.stringify(request),
    signal: hangUp.signal,
  })
  await until(async () => (await stats()).calls === 1)
  hangUp.abort()
  await expect(call).rejects.toThrow()
  await until(async () => (await charges()).length === 1)
  expect((await charge(request, 'k')).headers.get('idempotent-replayed')).toBe('true')
})

test('503 with Retry-After does nothing and is not remembered', async () => {
  await start({ ...wellBehaved, unavailableShare: 0.5 })
  let unavailable = 0
  for (let n = 0; n < 40; n++) {
    const answer = await charge({ ...request, orderId: `order-${n}` }, `k${n}`)
    if (answer.status === 503) unavailable++
    if (answer.status === 503) expect(answer.headers.get('retry-after')).toBe('1')
  }
  expect(unavailable).toBeGreaterThan(0)
  expect(await charges()).toHaveLength(40 - unavailable)
})

test('an outage answers everything with 503, keys with an answer too, and ends', async () => {
  await start()
  await charge(request, 'k')
  await post('/admin/outage', { durationMs: 60_000 })
  expect((await charge(request, 'k')).status).toBe(503)
  await post('/admin/outage', { durationMs: 0 })
  expect((await charge(request, 'k')).status).toBe(201)
})

test('no key, no JSON, an unknown field or an odd amount: 400 and no charge', async () => {
  await start()
  expect((await post('/charges', request)).status).toBe(400)
  expect((await charge('no object', 'k')).status).toBe(400)
  expect((await charge({ ...request, voucher: 1 }, 'k')).status).toBe(400)
  expect((await charge({ ...request, amountCents: -1 }, 'k')).status).toBe(400)
  expect((await post('/admin/outage', {})).status).toBe(400)
  expect((await post('/nothing', {})).status).toBe(404)
  expect(await charges()).toEqual([])
})

test('the ledger and its answers outlive the process', async () => {
  await start()
  const first = await (await charge(request, 'k')).json()
  await provider.close()
  await start()
  expect(await (await charge(request, 'k')).json()).toEqual(first)
  expect(await charges()).toHaveLength(1)
})

async function until(condition: () => Promise<boolean>): Promise<void> {
  const signal = AbortSignal.timeout(10_000)
  while (!(await condition())) signal.throwIfAborted()
}
