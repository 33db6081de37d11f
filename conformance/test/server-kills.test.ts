import { expect, test } from 'vitest'
import { brokers } from '../src/crash/brokers.ts'
import { runCampaign } from '../src/crash/campaign.ts'
import { jsonLineOf } from '../src/crash/report.ts'
import { oneForEachAdapter } from './processes.ts'

const kills = 60
const brokerKills = 2
const seed = 20_260_101
const withServer = brokers.filter(({ hasServer }) => hasServer)

for (const broker of withServer) {
  test(`${broker.name}: kills of the server break nothing (seed ${seed})`, { timeout: 180_000 }, async () => {
    const result = await runCampaign({ broker, kills, brokerKills, seed })
    console.log(jsonLineOf(result))
    expect(result.findings).toEqual([])
    expect(result).toMatchObject({ ok: true, kills, brokerKills })
  })
}

for (const broker of oneForEachAdapter(withServer)) {
  test(`${broker.name}: a server that forgets is found out (seed ${seed})`, { timeout: 180_000 }, async () => {
    const result = await runCampaign({ broker, kills: 20, seed, control: 'volatile-broker' })
    expect(result.ok).toBe(false)
    expect(result.counts.lost).toBeGreaterThan(0)
  })
}

const sqlite = brokers.find(({ name }) => name === 'sqlite')!

test.each([
  [{ brokerKills: 1 }, '--broker-kills'],
  [{ net: true }, '--net'],
  [{ control: 'volatile-broker', brokerKills: 0 }, 'a server that forgets'],
])('%o is refused where the run has no server of its own', async (asked, named) => {
  const refused = { code: 'UNSUPPORTED', message: expect.stringContaining(`${named}: 'sqlite' is embedded`) }
  await expect(runCampaign({ broker: sqlite, kills: 1, seed, ...asked })).rejects.toMatchObject(refused)
})
