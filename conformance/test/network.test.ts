import { expect, test } from 'vitest'
import { brokers } from '../src/crash/brokers.ts'
import { runCampaign } from '../src/crash/campaign.ts'
import { faults } from '../src/crash/network.ts'
import { jsonLineOf } from '../src/crash/report.ts'
import { oneForEachAdapter } from './processes.ts'

const kills = 40
const seed = 20_260_101
const withServer = brokers.filter(({ hasServer }) => hasServer)

for (const broker of withServer) {
  test(`${broker.name}: a bad network breaks nothing (seed ${seed})`, { timeout: 180_000 }, async () => {
    const result = await runCampaign({ broker, kills, net: true, seed })
    console.log(jsonLineOf(result))
    expect(result.findings).toEqual([])
    expect(result).toMatchObject({ ok: true, kills })
    expect([...result.faults!.keys()].sort()).toEqual([...faults].sort())
    expect(Math.min(...result.faults!.values())).toBeGreaterThan(0)
  })
}

for (const broker of oneForEachAdapter(withServer)) {
  test(`${broker.name}: a driver that believes what nobody said is found out (seed ${seed})`, {
    timeout: 180_000,
  }, async () => {
    const result = await runCampaign({ broker, kills: 20, seed, control: 'unknown-is-stored' })
    expect(result.ok).toBe(false)
    expect(result.counts.lost).toBeGreaterThan(0)
  })
}
