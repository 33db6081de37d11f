/**
 * `npm test`: checks, then the tests of all packages; `npm test -- core sqlite`: those of the named ones. What their
 * tests need of real servers is brought up first, and a run that did not start all of it has failed.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { endEngine, prepareBed, type ServerName, serverNames } from '../conformance/src/bed/index.ts'
import { IdemqError } from '../packages/core/src/index.ts'
import { run, selectPackages } from './workspace.ts'

const names = process.argv.slice(2)
const selected = selectPackages(names)
const needed = new Set(selected.flatMap(({ manifest: { bed = [] } }) => (bed === 'all' ? serverNames : bed)))

function fail(what: string): never {
  console.error(`npm test: ${what}`)
  process.exit(1)
}

async function prepare(): Promise<void> {
  const startedAtMs = performance.now()
  try {
    await prepareBed([...needed])
  } catch (error) {
    fail(`no servers to test on: ${error instanceof IdemqError ? error.message : String(error)}`)
  }
  console.log(`bed ready after ${((performance.now() - startedAtMs) / 1_000).toFixed(1)} s: ${[...needed].join(' ')}`)
}

/** Runs the tests and sees which servers they started, each with its image. */
async function test(): Promise<{ readonly passed: boolean; readonly started: ReadonlyMap<ServerName, string> }> {
  const directory = mkdtempSync(join(tmpdir(), 'idemq-test-'))
  const log = join(directory, 'bed.log')
  writeFileSync(log, '')
  process.env.IDEMQ_BED_LOG = log
  const passed = await run('vitest', [
    ...['run', '--config', 'scripts/vitest.config.ts'],
    ...selected.map((p) => join(p.directory, '/')),
  ])
  const started = new Map<ServerName, string>()
  for (const [, name, image] of readFileSync(log, 'utf8').matchAll(/^(\S+) \((\S+)\) serves at /gm)) {
    started.set(name as ServerName, image!)
  }
  delete process.env.IDEMQ_BED_LOG
  rmSync(directory, { recursive: true })
  return { passed, started }
}

if (names.length === 0 && !(await run('node', ['--conditions=idemq-source', 'scripts/check.ts']))) fail('check failed')
if (needed.size > 0) await prepare()
const { passed, started } = await test()
if (needed.size > 0) await endEngine()
if (!passed) fail('tests failed')
const skipped = [...needed].filter((name) => !started.has(name))
if (skipped.length > 0) fail(`these servers were never started by a test: ${skipped.join(' ')}`)

console.log(`covered: ${selected.map((p) => p.name).join(' ')}`)
const embedded = selected.filter(({ manifest }) => manifest.idemq && !manifest.bed).map((p) => p.name)
if (embedded.length > 0) console.log(`embedded brokers: ${embedded.join(' ')}`)
if (started.size > 0)
  console.log(`real servers: ${[...started].map(([name, image]) => `${name} (${image})`).join(' ')}`)
// An engine that was here before keeps a connection to this process.
process.exit(0)
