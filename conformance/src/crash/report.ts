/** What a campaign prints. */
import { type CrashPoint, crashPoints } from '@idemq/core'
import type { CampaignResult } from './campaign.ts'
import { expectations } from './expectations.ts'

const maxFindings = 40

/** A table per place of death, then what was counted, line by line. */
export function reportOf(result: CampaignResult): string {
  const { aftermath, pointKills, requiredHits, findings, seed } = result
  const rows = [...aftermath].sort((a, b) => rank(a.where) - rank(b.where))
  const lines = [
    `${'killed at'.padEnd(26)} kills  jobs again  done  dead absent  what must follow`,
    ...rows.map(({ where, kills, jobs, startedAgain, completed, dead, absent }) => {
      const numbers = [kills, jobs, startedAgain, completed, dead, absent].map((n) => String(n).padStart(5)).join(' ')
      return `${where.padEnd(26)} ${numbers}   ${expectations[where as CrashPoint]?.follows ?? ''}`.trimEnd()
    }),
    `${'a random instant'.padEnd(26)} ${String(result.kills - rows.reduce((sum, row) => sum + row.kills, 0)).padStart(5)}`,
    'jobs: in hand when killed · again: their handler started again · absent: never stored and nobody was told it was',
    `each of ${pointKills.size} crash points needs ${requiredHits} kills; least: ${Math.min(...pointKills.values())}`,
  ]
  if (findings.length === 0) return lines.join('\n')
  const shown = findings.slice(0, maxFindings)
  if (findings.length > shown.length) shown.push(`… and ${findings.length - shown.length} more`)
  return [...lines, '', ...shown, `seed ${seed} repeats the choices of this run`].join('\n')
}

/** The last line: the result for programs. */
export function jsonLineOf({ broker, kills, counts, seed }: CampaignResult): string {
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
    seed,
  })
}

function rank(where: string): number {
  const at = Object.keys(crashPoints).indexOf(where)
  return at < 0 ? Number.POSITIVE_INFINITY : at
}
