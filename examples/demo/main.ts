/**
 * The demo: a shop's orders are charged and reserved by three worker processes that are killed again and again, by way
 * of a payment provider that has a bad day; and in the end the books are compared.
 *
 * Run: npm run demo [-- --seed n --kills n]. The seed repeats the choices; where in the work they fall is up to the
 * machine. IDEMQ_URL names another broker, IDEMQ_STORE_URL another database for inbox, outbox and tables.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { reckon, replayDeclined, showDeadLetters, work } from './acts.ts'
import { killChildren } from './crew.ts'
import { count, openScreen } from './screen.ts'
import { type Stage, setStage } from './stage.ts'

const workers = 3
const longestRunMs = 150_000
const mostBrokenShown = 20

const { values } = parseArgs({ options: { seed: { type: 'string' }, kills: { type: 'string', default: '24' } } })
const seed = Number(values.seed ?? Math.floor(Math.random() * 1_000_000))
const kills = Number(values.kills)
if (!Number.isInteger(seed) || !Number.isInteger(kills) || kills < 1) {
  console.error('usage: npm run demo [-- --seed <integer> --kills <integer from 1>]')
  process.exit(2)
}
const screen = openScreen(process.stdout)
const directory = mkdtempSync(join(tmpdir(), 'idemq-demo-'))

// Whatever the way out: no process and no file stays behind.
process.on('exit', () => {
  killChildren()
  rmSync(directory, { recursive: true, force: true, maxRetries: 5 })
})
const exitCodes = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 }
for (const signal of Object.keys(exitCodes) as (keyof typeof exitCodes)[]) {
  process.on(signal, () => {
    screen.endProgress()
    screen.say('interrupted: workers and provider are stopped')
    process.exit(exitCodes[signal])
  })
}

try {
  const problem = await play()
  if (problem) fail(problem)
} catch (error) {
  screen.endProgress()
  // What aborted the demo is the cause of what the abort made fail.
  const problem = error instanceof Error && error.name === 'AbortError' ? (error.cause ?? error) : error
  if (problem instanceof Error) screen.say(problem.stack)
  fail(problem instanceof Error ? problem.message : String(problem))
}
process.exit(0)

function fail(problem: string): never {
  screen.say(`demo FAILED: ${problem} (seed ${seed})`)
  process.exit(1)
}

/** Plays all acts; returns what is wrong, if anything is. */
async function play(): Promise<string | undefined> {
  const stage = await setStage({ screen, directory, seed, workers, longestRunMs })
  introduce(stage)
  const startedAtMs = performance.now()
  const killedAtWork = await work(stage, seed, kills)
  screen.say()
  screen.say(`Nothing is left to do after ${((performance.now() - startedAtMs) / 1_000).toFixed(0)} s. Dead letters:`)
  await showDeadLetters(stage)
  screen.say()
  const { replayed, kills: killedInReplay } = await replayDeclined(stage, seed)
  screen.say()
  screen.say('The books:')
  const verdict = await reckon(stage)
  await stage.leave()
  screen.say()
  const { orders, charged, doubled, lost, dead, broken } = verdict
  const sums = `orders=${orders} charged=${charged} doubled=${doubled} lost=${lost} dead=${dead} replayed=${replayed} kills=${killedAtWork + killedInReplay}`
  if (broken.length === 0) {
    screen.say('Every order was charged once and reserved once, or waits among the dead letters with its reason.')
    screen.say(`demo ok: ${sums}`)
    return undefined
  }
  for (const promise of broken.slice(0, mostBrokenShown)) screen.say(`  BROKEN: ${promise}`)
  if (broken.length > mostBrokenShown) screen.say(`  … and ${broken.length - mostBrokenShown} more`)
  return `${broken.length} broken promises; ${sums}`
}

function introduce({ run, refused, crew, mq, inbox }: Stage): void {
  const reasons = [...Map.groupBy(refused, ({ reason }) => reason)].map(([reason, of]) => `${of.length} × ${reason}`)
  const pids = crew.ready().map(({ pid }) => pid)
  screen.say(`A shop's order file: ${count(run.orders.length + refused.length)} lines.`)
  screen.say(`  ${refused.length} lines are refused before anything is sent: ${reasons.join(', ')}`)
  screen.say(`  ${count(run.orders.length)} clicks become two jobs each: charge the card, reserve the stock`)
  const where = mq.driver.name === inbox.name ? mq.driver.name : `${mq.driver.name}, inbox on ${inbox.name}`
  screen.say(`Three workers (pids ${pids.join(', ')}) on ${where}; each will be killed with`)
  screen.say(
    'SIGKILL again and again, in the middle of its work. The payment provider is a process of its own: slow at',
  )
  screen.say('times, down at times, and now and then it charges and cuts the line before it answers.')
  screen.say(`Seed ${seed}: npm run demo -- --seed ${seed} repeats the choices.`)
  screen.say()
}
