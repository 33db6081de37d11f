// idemq worked vs by hand, interleaved rounds, from the bench
import pg from 'pg'
import { inFreshProcess } from '/work/main/scripts/bench/harness/fresh-process.ts'
import { published, worked, workedWithInbox } from '/work/main/scripts/bench/harness/idemq-tasks.ts'
import { publishByHand, workByHand } from '/work/main/scripts/bench/postgres/by-hand.ts'
const tasks = 'file:///work/main/scripts/bench/harness/idemq-tasks.ts', byHand = 'file:///work/main/scripts/bench/postgres/by-hand.ts'
const base = process.env.PGURL!
const admin = new pg.Client({ connectionString: base }); await admin.connect()
const fresh = async () => { await admin.query('DROP DATABASE IF EXISTS bench WITH (FORCE)'); await admin.query('CREATE DATABASE bench'); const u = new URL(base); u.pathname = '/bench'; return { url: u.href, otherUrl: u.href + '?schema=other' } }
const jobs = 60000, warmupJobs = 5000
const rounds = Number(process.argv[2] ?? 3)
const s = (c: any) => `${c.jobsPerSecond.toFixed(0)}/s ${c.cpuUsPerJob.toFixed(1)}us`
const rs: number[][] = [[], []]
for (let i = 0; i < rounds; i++) {
  const run = { ...(await fresh()), jobs, warmupJobs }
  const p = await inFreshProcess(tasks, published as any, run) as any
  const w = await inFreshProcess(tasks, worked as any, run) as any
  const run2 = { ...(await fresh()), jobs, warmupJobs }
  const hp = await inFreshProcess(byHand, publishByHand as any, { ...run2, encode: true }) as any
  const hw = await inFreshProcess(byHand, workByHand as any, run2) as any
  let inbox = ''
  if (process.argv[3]) { const c = await inFreshProcess(tasks, workedWithInbox as any, { ...(await fresh()), jobs: 20000, warmupJobs, concurrency: Number(process.argv[3]) }); inbox = s(c) }
  rs[0]!.push(p.jobsPerSecond / hp.jobsPerSecond); rs[1]!.push(w.jobsPerSecond / hw.jobsPerSecond)
  console.log('publish', s(p), 'hand', s(hp), (p.jobsPerSecond / hp.jobsPerSecond).toFixed(2), '| work', s(w), 'hand', s(hw), (w.jobsPerSecond / hw.jobsPerSecond).toFixed(2), '| inbox', inbox)
}
const med = (v: number[]) => v.sort((a, b) => a - b)[v.length >> 1]!.toFixed(2)
console.log('median ratios publish', med(rs[0]!), 'work', med(rs[1]!))
await admin.end()
