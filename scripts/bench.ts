/**
 * `npm run bench`: measures every adapter that has a file in bench/; `npm run bench -- memory sqlite`: the named ones.
 * Timings never make it fail: it exits 1 only if something broke (a job lost, a count that is wrong), 2 on bad usage.
 */
import { readdirSync } from 'node:fs'
import { availableParallelism, cpus } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { root } from './workspace.ts'

interface Bench {
  /** Measures and prints. Rejects only if something broke. */
  readonly bench: () => Promise<void>
}

const directory = join(root, 'scripts/bench')
const known = readdirSync(directory, { withFileTypes: true })
  .filter((file) => file.isFile() && file.name.endsWith('.ts'))
  .map((file) => file.name.slice(0, -'.ts'.length))

const names = process.argv.slice(2)
const unknown = names.filter((name) => !known.includes(name))
if (unknown.length > 0) {
  console.error(`bench: unknown: ${unknown.join(', ')}; known: ${known.join(' ')}`)
  process.exit(2)
}

const startedAtMs = performance.now()
const seconds = (): string => `${((performance.now() - startedAtMs) / 1_000).toFixed(0)} s`
console.log(
  `node ${process.versions.node} · sqlite ${process.versions.sqlite} · ${availableParallelism()} CPUs (${cpus()[0]?.model.trim() || process.arch}) · ${process.platform}`,
)
console.log(
  'How to read a ratio: the rate of idemq divided by the rate of the same work done by hand in this run, on this ' +
    'machine and disk; 1.00 = idemq costs nothing, 0.50 = half as fast.',
)
const broken: string[] = []
for (const name of names.length > 0 ? names : known) {
  const { bench } = (await import(pathToFileURL(join(directory, `${name}.ts`)).href)) as Bench
  try {
    await bench()
  } catch (error) {
    console.error(`\nbench ${name} BROKE:`, error)
    broken.push(name)
  }
}
console.log(broken.length === 0 ? `\nbench ended after ${seconds()}` : `\nbench: ${broken.join(', ')} broke`)
process.exit(broken.length === 0 ? 0 : 1)
