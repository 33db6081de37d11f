/** `npm run crash -- <broker|url> …`: kills real processes, servers and networks, and counts what that broke. */
import { parseArgs } from 'node:util'
import {
  type Broker,
  brokers,
  controls,
  faults,
  findBroker,
  jsonLineOf,
  relayPlaces,
  reportOf,
  runCampaign,
} from '../conformance/src/crash/index.ts'
import { IdemqError } from '../packages/core/src/index.ts'

const usage = `usage: npm run crash -- <broker|url> [options]

Kills real processes of <broker> and counts what that broke. The last line is the result as JSON; exit 0 if all counts
are zero and every crash point was hit often enough. A broker by name (${brokers.map(({ name }) => name).join(', ')}) is started
fresh and stopped afterwards, with settings under which what it confirms is durable; what is at a URL must be empty.

--kills N         how many processes are killed (200)
--seed S          repeats a run's choices
--broker-kills M  the server is killed M times too, spread over the run, and started again
--net             the network between processes and server is bad, time and again: ${faults.join(', ')}
--relay-kills N   instead of --kills: only relays are killed, N times at each place: ${relayPlaces.join(', ')}
--break CONTROL   runs with a part that is wrong on purpose: then anything counted is as it should be, and the exit
                  code is 1; --break list names them
--aim CONTROL     kills and disturbs as that control does, with the real parts: exit 0
--keep            leaves the log of statements and an embedded broker's files for a look

for example: npm run crash -- redis --kills 200 --broker-kills 20
             npm run crash -- postgres --relay-kills 200`

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    kills: { type: 'string' },
    'broker-kills': { type: 'string' },
    net: { type: 'boolean', default: false },
    'relay-kills': { type: 'string' },
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
const { 'broker-kills': brokerKills, 'relay-kills': relayKills } = values
const kills =
  relayKills === undefined ? integer('kills', values.kills ?? '200', 1) : integer('relay-kills', relayKills, 1)
const seed = values.seed === undefined ? Math.floor(Math.random() * 2 ** 31) : integer('seed', values.seed, 0)
if (values.break !== undefined && values.aim !== undefined) refuse('--break and --aim exclude each other')
const control = values.break ?? values.aim
if (control !== undefined && !(control in controls)) refuse(`no control '${control}': --break list names them`)

if (relayKills !== undefined && (values.kills ?? values.aim) !== undefined) {
  refuse('--relay-kills says what is killed: not with --kills or --aim')
}

const broker = brokerNamed(positionals[0]!)

const all = relayKills === undefined ? kills : kills * relayPlaces.length
let shownAtMs = 0
const startedAtMs = performance.now()
const campaign = runCampaign({
  broker,
  kills,
  seed,
  keep: values.keep,
  harmless: values.aim !== undefined,
  ...(control !== undefined && { control }),
  ...(brokerKills !== undefined && { brokerKills: integer('broker-kills', brokerKills, 1) }),
  ...(values.net && { net: true }),
  relays: relayKills !== undefined,
  onProgress(done) {
    if (performance.now() - shownAtMs < 5_000) return
    shownAtMs = performance.now()
    console.log(`${done} of ${all} kills, ${((shownAtMs - startedAtMs) / 1_000).toFixed(0)} s`)
  },
})
const result = await campaign.catch((error: unknown) => {
  // The broker cannot be judged or reached: what to do is in the message.
  if (!(error instanceof IdemqError)) throw error
  console.error(`${error.code}: ${error.message}`)
  process.exit(2)
})
console.log(reportOf(result))
console.log(`${((performance.now() - startedAtMs) / 1_000).toFixed(1)} s`)
if (values.keep) console.log(`kept: ${result.directory}`)
console.log(jsonLineOf(result))
process.exit(result.ok ? 0 : 1)
