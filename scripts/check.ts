/** Types, lint and format of the whole workspace, and that generated files are up to date. */
import { join } from 'node:path'
import { packages, run } from './workspace.ts'

const checks: [what: string, tool: string, args: string[]][] = [
  ['lint and format', 'biome', ['check', '--error-on-warnings', '--config-path=.biome.json', '.']],
  ['generated files', 'node', ['--conditions=idemq-source', 'scripts/matrix.ts', '--check']],
  ...packages.map((p): [string, string, string[]] => [
    `types of ${p.name}`,
    'tsc',
    ['-p', join(p.directory, 'tsconfig.json')],
  ]),
  ['code of the READMEs', 'node', ['scripts/readme.ts']],
  ['types of scripts', 'tsc', ['-p', 'scripts/tsconfig.json']],
]
const failed: string[] = []
for (const [what, tool, args] of checks) if (!(await run(tool, args))) failed.push(what)
console.log(failed.length === 0 ? `check ok: ${checks.length} checks` : `check FAILED: ${failed.join(', ')}`)
process.exit(failed.length === 0 ? 0 : 1)
