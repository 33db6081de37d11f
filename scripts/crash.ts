// npm run crash -- <broker> [--kills N] [--seed S] [--break NAME|list] [--aim NAME] [--keep]
import { parseArgs } from 'node:util'
import { type Broker, controls, findBroker, jsonLineOf, reportOf, runCampaign } from '../conformance/src/crash/index.ts'
import { IdemqError } from '../packages/core/src/index.ts'

const usage = `usage: npm run crash -- <broker|url> [--kills 200] [--seed S] [--break <control>|list] [--aim <control>] [--keep]

Kills real processes of <broker> and counts what that broke. The last line is the result as JSON; exit 0 if all counts
are zero and every crash point was hit often enough.
--break runs with a part that is wrong on purpose; then anything counted is as it should be, and the exit code is 1.
--aim kills where a control does, with the real parts: exit 0.
--keep leaves the log of statements and the broker's files for a look.`

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    kills: { type: 'string', default: '200' },
    seed: { type: 'string' },
    break: { type: 'string' },
    aim: { type: 'string' },
    keep: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})

function refuse(what: string): never {
  console.error(`${what}\n\n${usage}`)
  process.exit(2)
}

function integer(name: string, text: string, min: number): number {
  const value = Number(text)
  if (!Number.isInteger(value) || value < min) refuse(`--${name} is '${text}', must be an integer from ${min}`)
  return value
}

function brokerNamed(name: string): Broker {
  try {
    return findBroker(name)
  } catch (error) {
    return refuse((error as Error).message)
  }
}

if (values.help) {
  console.log(usage)
  process.exit(0)
}
if (values.break === 'list') {
  for (const [name, { wrong }] of Object.entries(controls)) console.log(`${name.padEnd(24)} ${wrong}`)
  process.exit(0)
}
if (positionals.length !== 1) refuse('name one broker')
const kills = integer('kills', values.kills, 1)
const seed = values.seed === undefined ? Math.floor(Math.random() * 2 ** 31) : integer('seed', values.seed, 0)
if (values.break !== undefined && values.aim !== undefined) refuse('--break and --aim exclude each other')
const control = values.break ?? values.aim
if (control !== undefined && !(control in controls)) refuse(`no control '${control}': --break list names them`)

const broker = brokerNamed(positionals[0]!)

let shownAtMs = 0
const startedAtMs = performance.now()
const campaign = runCampaign({
  broker,
  kills,
  seed,
  keep: values.keep,
  harmless: values.aim !== undefined,
  ...(control !== undefined && { control }),
  onProgress(done) {
    if (performance.now() - shownAtMs < 5_000) return
    shownAtMs = performance.now()
    console.log(`${done} of ${kills} kills, ${((shownAtMs - startedAtMs) / 1_000).toFixed(0)} s`)
  },
})
const result = await campaign.catch((error: unknown) => {
  // The broker cannot be judged, or does not exist: what to do is in the message.
  if (error instanceof IdemqError && (error.code === 'UNSUPPORTED' || error.code === 'MISSING_PACKAGE')) {
    refuse(error.message)
  }
  throw error
})
console.log(reportOf(result))
console.log(`${((performance.now() - startedAtMs) / 1_000).toFixed(1)} s`)
if (values.keep) console.log(`kept: ${result.directory}`)
console.log(jsonLineOf(result))
process.exit(result.ok ? 0 : 1)
