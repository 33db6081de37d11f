/** `npm test`: checks, then the tests of all packages; `npm test -- core sqlite`: those of the named ones. */
import { join } from 'node:path'
import { run, selectPackages } from './workspace.ts'

const names = process.argv.slice(2)
const selected = selectPackages(names)
const steps: [what: string, () => boolean][] = [
  ...(names.length === 0
    ? ([['check', () => run('node', ['--conditions=idemq-source', 'scripts/check.ts'])]] as [string, () => boolean][])
    : []),
  [
    'tests',
    () =>
      run('vitest', ['run', '--config', 'scripts/vitest.config.ts', ...selected.map((p) => join(p.directory, '/'))]),
  ],
]
const brokers = selected.flatMap((p) => p.manifest.idemq?.schemes ?? [])
for (const [what, step] of steps) {
  if (step()) continue
  console.error(`npm test: ${what} failed`)
  process.exit(1)
}
console.log(
  `covered: ${selected.map((p) => p.name).join(' ')}${brokers.length > 0 ? `; brokers: ${brokers.join(' ')}` : ''}`,
)
