/** What a campaign prints. */
import { type CrashPoint, crashPoints } from '@idemq/core'
import type { CampaignResult } from './campaign.ts'
import { expectations } from './expectations.ts'
import { edges } from './plans.ts'
import { followsRelay } from './relay-kills.ts'

const maxFindings = 40

/** A table per place of death, then what was counted, line by line. */
export function reportOf(result: CampaignResult): string {
  const { aftermath, pointKills, requiredHits, findings, seed, outbox } = result
  const followsAt = (where: string): string | undefined =>
    outbox ? followsRelay(where) : expectations[where as CrashPoint]?.follows
  const rows = [...aftermath].sort((a, b) => rank(a.where) - rank(b.where))
  const lines = [
    `${'killed at'.padEnd(26)} kills  jobs again  done  dead absent  what must follow`,
    ...rows.map(({ where, kills, jobs, startedAgain, completed, dead, absent }) => {
      const numbers = [kills, jobs, startedAgain, completed, dead, absent].map((n) => String(n).padStart(5)).join(' ')
      return `${where.padEnd(26)} ${numbers}   ${followsAt(where) ?? ''}`.trimEnd()
    }),
    `${'a random instant'.padEnd(26)} ${String(result.kills - rows.reduce((sum, row) => sum + row.kills, 0)).padStart(5)}`,
    'jobs: in hand when killed · again: their handler started again · absent: never stored and nobody was told it was',
    `each of ${pointKills.size} places needs ${requiredHits} kills; least: ${Math.min(...pointKills.values())}`,
    ...disturbancesOf(result),
  ]
  if (findings.length === 0) return lines.join('\n')
  const shown = findings.slice(0, maxFindings)
  if (findings.length > shown.length) shown.push(`… and ${findings.length - shown.length} more`)
  return [...lines, '', ...shown, `seed ${seed} repeats the choices of this run`].join('\n')
}

function disturbancesOf({ brokerKills, faults, unavailable, outbox }: CampaignResult): string[] {
  const lines: string[] = []
  if (brokerKills !== undefined) lines.push(`the server was killed and started again ${brokerKills} times`)
  if (faults) lines.push(`the network was bad: ${[...faults].map(([fault, times]) => `${fault} ${times}`).join(', ')}`)
  if (unavailable > 0) lines.push(`${unavailable} times a process found the broker away, ended, and was started again`)
  if (outbox) {
    const { committed, rolledBack, absorbed } = outbox
    lines.push(
      `outbox: ${committed} rows committed, ${rolledBack} rolled back, ${absorbed} deliveries recognised as done`,
    )
  }
  return lines
}

/** The last line: the result for programs. */
export function jsonLineOf({ broker, kills, counts, seed, brokerKills, faults, outbox }: CampaignResult): string {
  const { jobs, lost, unexpected, doubled, attemptsOver, staleWrites } = counts
  return JSON.stringify({
    broker,
    kills,
    jobs,
    lost,
    unexpected,
    doubled,
    attempts_over: attemptsOver,
    stale_writes: staleWrites,
    ...(brokerKills !== undefined && { broker_kills: brokerKills }),
    ...(faults && { faults: Object.fromEntries(faults) }),
    ...(outbox && { committed: outbox.committed, rolled_back: outbox.rolledBack, absorbed: outbox.absorbed }),
    seed,
  })
}

function rank(where: string): number {
  const at = order.indexOf(where)
  return at < 0 ? order.length : at
}

const order: readonly string[] = [...Object.keys(crashPoints), ...edges]
