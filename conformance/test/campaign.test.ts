import { expect, test } from 'vitest'
import { runCampaign } from '../src/crash/campaign.ts'
import { jsonLineOf } from '../src/crash/report.ts'
import { crashableBrokers } from './processes.ts'

const kills = 40
const seed = 20_260_101

for (const broker of await crashableBrokers()) {
  test(`${broker.name}: ${kills} kills break nothing (seed ${seed})`, { timeout: 180_000 }, async () => {
    const result = await runCampaign({ broker, kills, seed })
    console.log(jsonLineOf(result))
    expect(result.findings).toEqual([])
    expect(result).toMatchObject({ ok: true, kills })
    expect([...result.pointKills.values()].every((hits) => hits >= 2)).toBe(true)
  })

  test(`${broker.name}: a driver that acks first is found out (seed ${seed})`, { timeout: 180_000 }, async () => {
    const result = await runCampaign({ broker, kills: 12, seed, control: 'ack-first' })
    expect(result.ok).toBe(false)
    expect(result.counts.lost).toBeGreaterThan(0)
  })
}
