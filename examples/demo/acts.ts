/** What happens in the demo, act by act. */
import { setTimeout as delay } from 'node:timers/promises'
import { enqueueReservations } from '../inventory/enqueue.ts'
import { enqueueCharges } from '../payments/enqueue.ts'
import { seededRandom } from '../seeded-random.ts'
import { pendingJobs, untilIdle } from '../until-idle.ts'
import type { Member } from './crew.ts'
import { deadLetters, gatherFacts, queues } from './facts.ts'
import { compare, type Verdict } from './promises.ts'
import { count } from './screen.ts'
import type { Stage } from './stage.ts'

const outages = 3
const outageMs = 2_500
const lookEveryMs = 250

/**
 * Orders arrive in portions, and at a random instant after each portion a worker is killed. Three times the provider
 * goes down. Ends when nothing is left to do; returns the kills.
 */
export async function work(stage: Stage, seed: number, kills: number): Promise<number> {
  const { mq, run, screen, signal } = stage
  const random = seededRandom(`kills/${seed}`)
  const jobs = run.orders.length * 2
  let enqueued = 0
  let killed = 0
  const watching = new AbortController()
  const watch = watchProgress(stage, jobs, AbortSignal.any([watching.signal, signal]), () => ({ enqueued, killed }))

  const outageAfter = new Set(
    Array.from({ length: outages }, (_, n) => Math.floor(((n + 0.2 + random() * 0.6) * kills) / outages)),
  )
  for (let portion = 0; portion < kills; portion++) {
    const from = Math.floor((portion * run.orders.length) / kills)
    const orders = run.orders.slice(from, Math.floor(((portion + 1) * run.orders.length) / kills))
    for (const results of [await enqueueCharges(mq, orders), await enqueueReservations(mq, orders)]) {
      const failed = results.find((result) => result.status === 'failed')
      if (failed) throw failed.error
      enqueued += results.length
    }
    if (outageAfter.has(portion)) {
      screen.event(`the provider goes down for ${outageMs / 1_000} s: every call is answered 503`)
      await stage.admin('outage', { durationMs: outageMs })
    }
    await delay(random() * 500, undefined, { signal })
    await killOne(stage, random)
    killed++
    await delay(400 + random() * 800, undefined, { signal })
  }
  await untilDone(stage)
  watching.abort()
  await watch
  screen.endProgress()
  return killed
}

/** Kills a worker that has jobs in its hands. */
async function killOne({ crew, screen, signal }: Stage, random: () => number): Promise<void> {
  const victim = await pickVictim(() => crew.ready(), random, signal)
  const { before, successorPid } = await crew.kill(victim.number)
  const hands = before.inHand === 1 ? '1 job in its hands' : `${before.inHand} jobs in its hands`
  screen.event(`kill -9 worker ${before.number} (pid ${before.pid}) with ${hands}; pid ${successorPid} takes its place`)
}

/** Somebody at work; where nobody is for a while (the provider is down), somebody. */
async function pickVictim(ready: () => Member[], random: () => number, signal: AbortSignal): Promise<Member> {
  const choice = random()
  for (let looks = 0; ; looks++) {
    const members = ready()
    const busy = members.filter(({ inHand }) => inHand > 0)
    const candidates = busy.length > 0 || looks < 30 ? busy : members
    const victim = candidates[Math.floor(choice * candidates.length)]
    if (victim) return victim
    await delay(50, undefined, { signal })
  }
}

async function watchProgress(
  { mq, screen }: Stage,
  jobs: number,
  signal: AbortSignal,
  state: () => { enqueued: number; killed: number },
): Promise<void> {
  while (!signal.aborted) {
    const { enqueued, killed } = state()
    const pending = (await pendingJobs(mq, 'payments')).jobs + (await pendingJobs(mq, 'inventory')).jobs
    const done = Math.max(0, enqueued - pending)
    screen.progress(
      done,
      jobs,
      `${count(done)} of ${count(jobs)} jobs done, ${count(pending)} under way, ${killed} kills`,
    )
    await delay(lookEveryMs, undefined, { signal }).catch(() => undefined)
  }
}

function untilDone({ mq, crew, outbox, signal }: Stage): Promise<void> {
  const elsewhere = async (): Promise<number> => {
    const inHand = crew.ready().reduce((sum, member) => sum + member.inHand, 0)
    return inHand + (await outbox.stats()).pending
  }
  return untilIdle(mq, queues, { elsewhere, signal })
}

/** Says what ended among the dead letters, grouped by error; returns how many. */
export async function showDeadLetters({ mq, run, screen }: Stage): Promise<number> {
  const dead = await deadLetters(run, mq)
  for (const [queue, ofQueue] of Map.groupBy(dead, (letter) => letter.queue)) {
    const groups = [...Map.groupBy(ofQueue, ({ error }) => error)].sort(([, a], [, b]) => b.length - a.length)
    for (const [error, letters] of groups) {
      const example = letters[0]!
      screen.say(`  ${queue.padEnd(13)} ${String(letters.length).padStart(4)} × ${error}`)
      const why = meaning[error] ?? `${example.reason}: ${example.message}`
      screen.say(`  ${''.padEnd(20)} ${why}, e.g. ${example.orderId}`)
    }
  }
  return dead.length
}

const meaning: Readonly<Record<string, string>> = {
  CardDeclined: 'the customer needs another card; trying again would not help',
  key_mismatch: 'the same payment attempt with another amount: the first one counts, a person decides',
  OutOfStock: 'paid but sold out: restock and replay, or refund',
}

/** The provider reissues the declined cards, and what was declined is replayed. Returns how many. */
export async function replayDeclined(stage: Stage, seed: number): Promise<{ replayed: number; kills: number }> {
  const { mq, run, screen } = stage
  const { cards } = (await stage.admin('reissue-cards', {})) as { cards: number }
  screen.say(`The bank reissues ${cards} cards, and the CardDeclined letters are replayed:`)
  const letters = mq.deadLetters('payments')
  const filter = {
    error: 'CardDeclined',
    where: ({ envelope }: { envelope: { idempotency_key: string } | undefined }) =>
      envelope?.idempotency_key.startsWith(`charge:${run.prefix}`) === true,
  }
  const { matched } = await letters.replay({ filter, dryRun: true })
  screen.say(`  a dry run would replay ${matched}`)
  const { replayed } = await letters.replay({ filter })
  const kills = replayed === 0 ? 0 : 1
  if (kills > 0) await killOne(stage, seededRandom(`replay/${seed}`))
  await untilDone(stage)
  screen.say(`  ${replayed} replayed, ${(await deadLetters(run, mq)).length} letters are left`)
  return { replayed, kills }
}

/** Compares the orders with the books of everybody else, and says so. */
export async function reckon(stage: Stage): Promise<Verdict & { dead: number }> {
  const { screen, told } = stage
  const facts = await gatherFacts(stage.run, stage)
  const verdict = compare(facts)
  const stats = (await stage.admin('stats')) as Record<string, number>
  const line = (text: string, n: number, note = ''): void =>
    screen.say(`  ${text.padEnd(36)} ${count(n).padStart(6)}${note && `   ${note}`}`)
  line('orders', verdict.orders, `clicked ${count(facts.orders.length)} times`)
  line("charges in the provider's ledger", facts.charges.length, `after ${count(stats.calls ?? 0)} calls`)
  line('  answered from its ledger', stats.sameAnswer ?? 0, 'the worker had died or the line was cut')
  line('  charged, then the line was cut', stats.cut ?? 0)
  line('  answered 503', stats.unavailable ?? 0)
  line('orders reserved', verdict.reserved, 'stock adds up and is nowhere below zero')
  line('customers told of a reservation', verdict.notified)
  line('duplicates caught by the inbox', told.duplicates, 'as far as the killed workers could tell')
  line('retries', told.retries, 'likewise')
  return { ...verdict, dead: facts.dead.length }
}
