import { describe, expect, test } from 'vitest'
import { brokers } from '../src/crash/brokers.ts'
import { runCampaign } from '../src/crash/campaign.ts'
import { controls } from '../src/crash/controls.ts'
import { faults } from '../src/crash/network.ts'
import { relayPlaces } from '../src/crash/relay-kills.ts'
import { jsonLineOf } from '../src/crash/report.ts'
import { oneForEachAdapter } from './processes.ts'

const seed = 20_260_101
const timeout = 180_000
const withServer = brokers.filter(({ hasServer }) => hasServer)

for (const broker of withServer) {
  test(`${broker.name}: kills of the server break nothing (seed ${seed})`, { timeout }, async () => {
    const result = await runCampaign({ broker, kills: 60, brokerKills: 2, seed })
    console.log(jsonLineOf(result))
    expect(result.findings).toEqual([])
    expect(result).toMatchObject({ ok: true, kills: 60, brokerKills: 2 })
  })

  test(`${broker.name}: a bad network breaks nothing (seed ${seed})`, { timeout }, async () => {
    const result = await runCampaign({ broker, kills: 40, net: true, seed })
    console.log(jsonLineOf(result))
    expect(result.findings).toEqual([])
    expect(result).toMatchObject({ ok: true, kills: 40 })
    expect([...result.faults!.keys()]).toEqual(faults)
    expect([...result.faults!.values()].every((times) => times > 0)).toBe(true)
  })
}

const faultControls = Object.entries(controls).filter(([, control]) => control.faults)

for (const broker of oneForEachAdapter(withServer)) {
  test.each(faultControls)(`${broker.name}: %s is found out (seed ${seed})`, { timeout }, async (control) => {
    const result = await runCampaign({ broker, kills: 20, seed, control })
    expect(result.ok).toBe(false)
    expect(result.counts.lost).toBeGreaterThan(0)
  })
}

describe('relays', () => {
  const withOutbox = brokers.filter(({ name }) => ['sqlite', 'postgres'].includes(name))

  test.each(withOutbox)(
    `$name: every committed row is sent, none that was rolled back`,
    { timeout },
    async (broker) => {
      const result = await runCampaign({ broker, kills: 6, relays: true, seed })
      console.log(jsonLineOf(result))
      expect(result.findings).toEqual([])
      expect(result.ok).toBe(true)
      expect([...result.pointKills]).toEqual(relayPlaces.map((place) => [place, 6]))
      expect(result.outbox!.committed).toBeGreaterThan(0)
      expect(result.outbox!.rolledBack).toBeGreaterThan(0)
    },
  )
})

describe('relays that are wrong', () => {
  const sqlite = brokers.find(({ name }) => name === 'sqlite')!

  test.each([
    ['outbox-marks-first', 'lost'],
    ['outbox-ignores-rollback', 'unexpected'],
  ] as const)('%s is found out', { timeout }, async (control, counted) => {
    const result = await runCampaign({ broker: sqlite, kills: 3, relays: true, seed, control })
    expect(result.ok).toBe(false)
    expect(result.counts[counted]).toBeGreaterThan(0)
  })
})

describe('what cannot happen is refused', () => {
  const [sqlite, redis] = ['sqlite', 'redis'].map((wanted) => brokers.find(({ name }) => name === wanted)!)

  test.each([
    [{ brokerKills: 1 }, '--broker-kills'],
    [{ net: true }, '--net'],
    [{ control: 'volatile-broker', brokerKills: 0 }, 'a server that forgets'],
  ])('%o without a server of the run', async (asked, named) => {
    const refused = { code: 'UNSUPPORTED', message: expect.stringContaining(`${named}: 'sqlite' is embedded`) }
    await expect(runCampaign({ broker: sqlite!, kills: 1, seed, ...asked })).rejects.toMatchObject(refused)
  })

  test('killing relays where there is no outbox', async () => {
    const refused = { code: 'UNSUPPORTED', message: expect.stringContaining('redis has no outbox') }
    await expect(runCampaign({ broker: redis!, kills: 1, relays: true, seed })).rejects.toMatchObject(refused)
  })
})
