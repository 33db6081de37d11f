/**
 * The demo: a shop's orders are charged and reserved by three worker processes that are killed again and again, by a
 * provider that has a bad day, and in the end the books are compared.
 *
 * Run: npm run demo [-- --seed n --kills n]. The seed repeats the choices; when they fall in the work is up to the
 * machine. IDEMQ_URL names another broker, IDEMQ_STORE_URL another database for inbox, outbox and tables.
 */
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { openConnection, openInbox } from '../connection.ts'
import { type Order, readOrders } from '../data/orders.ts'
import { initialStock, prepareInventory } from '../inventory/database.ts'
import { openMailService } from '../notifications/mail-service.ts'
import { forkChild, killChildren } from './crew.ts'
import type { Run } from './facts.ts'
import { count, openScreen, type Screen } from './screen.ts'
import { deadLetterAct, replayAct, reckoningAct, workAct } from './acts.ts'

const longestRunMs = 170_000

const { values } = parseArgs({ options: { seed: { type: 'string' }, kills: { type: 'string', default: '24' } } })
const seed = Number(values.seed ?? Math.floor(Math.random() * 1_000_000))
const kills = Number(values.kills)
const screen = openScreen(process.stdout)
const directory = mkdtempSync(join(tmpdir(), 'idemq-demo-'))

// Whatever way out is taken: no process and no file stays behind.
process.on('exit', () => {
  killChildren()
  rmSync(directory, { recursive: true, force: true, maxRetries: 5 })
})
for (const [signal, code] of [['SIGINT', 130], ['SIGTERM', 143], ['SIGHUP', 129]] as const) {
  process.on(signal, () => {
    screen.endProgress()
    screen.say('interrupted: the workers and the provider are stopped')
    process.exit(code)
  })
}

try {
  await demo(screen, AbortSignal.timeout(longestRunMs))
} catch (error) {
  fail(error)
}

function fail(error: unknown): never {
  screen.endProgress()
  if (error instanceof Error && error.name !== 'BrokenPromise') screen.say(error.stack)
  screen.say(`demo FAILED: ${error instanceof Error ? error.message : String(error)} (seed ${seed})`)
  process.exit(1)
}
