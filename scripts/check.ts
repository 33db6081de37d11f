/** Types, lint and format of the whole workspace, and that generated files are up to date. */
import { join } from 'node:path'
import { packages, run } from './workspace.ts'

const checks: [what: string, ok: boolean][] = [
  ['lint and format', run('biome', ['check', '--error-on-warnings', '--config-path=.biome.json', '.'])],
  ['generated files', run('node', ['--conditions=idemq-source', 'scripts/matrix.ts', '--check'])],
  ...packages.map((p): [string, boolean] => [
    `types of ${p.name}`,
    run('tsc', ['-p', join(p.directory, 'tsconfig.json')]),
  ]),
  ['code of the READMEs', run('node', ['scripts/readme.ts'])],
  ['types of scripts', run('tsc', ['-p', 'scripts/tsconfig.json'])],
]
const failed = checks.filter(([, ok]) => !ok).map(([what]) => what)
console.log(failed.length === 0 ? `check ok: ${checks.length} checks` : `check FAILED: ${failed.join(', ')}`)
process.exit(failed.length === 0 ? 0 : 1)
