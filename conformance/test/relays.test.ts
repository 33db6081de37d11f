import { expect, test } from 'vitest'
import { brokers } from '../src/crash/brokers.ts'
import { runCampaign } from '../src/crash/campaign.ts'
import { relayPlaces } from '../src/crash/relay-kills.ts'
import { jsonLineOf } from '../src/crash/report.ts'

const kills = 6
const seed = 20_260_101
const withOutbox = brokers.filter(({ name }) => ['sqlite', 'postgres'].includes(name))
const title = '$name: with relays killed at each place every committed row is sent, and none that was rolled back'

test.each(withOutbox)(title, { timeout: 180_000 }, async (broker) => {
  const result = await runCampaign({ broker, kills, relays: true, seed })
  console.log(jsonLineOf(result))
  expect(result.findings).toEqual([])
  expect(result.ok).toBe(true)
  expect([...result.pointKills]).toEqual(relayPlaces.map((place) => [place, kills]))
  expect(result.outbox!.committed).toBeGreaterThan(0)
  expect(result.outbox!.rolledBack).toBeGreaterThan(0)
  expect(result.outbox!.absorbed).toBeGreaterThan(0)
})

test.each(withOutbox)('$name: marking rows before they are sent is found out', { timeout: 180_000 }, async (broker) => {
  const result = await runCampaign({ broker, kills: 3, relays: true, seed, control: 'outbox-marks-first' })
  expect(result.ok).toBe(false)
  expect(result.counts.lost).toBeGreaterThan(0)
})

test.each(withOutbox)('$name: sending what is rolled back is found out', { timeout: 180_000 }, async (broker) => {
  const result = await runCampaign({ broker, kills: 6, seed, control: 'outbox-ignores-rollback' })
  expect(result.ok).toBe(false)
  expect(result.counts.unexpected).toBeGreaterThan(0)
})

test.each([
  ['killing relays', { relays: true }],
  ['a wrong outbox', { control: 'outbox-marks-first' }],
])('%s is refused where there are none', async (_, asked) => {
  const broker = brokers.find(({ name }) => name === 'redis')!
  const refused = { code: 'UNSUPPORTED', message: expect.stringContaining('redis has no outbox') }
  await expect(runCampaign({ broker, kills: 1, seed, ...asked })).rejects.toMatchObject(refused)
})
