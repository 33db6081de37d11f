/** Builds what is published: ESM by tsup, types by tsc from the same sources. */
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { packages, root, run, selectPackages } from './workspace.ts'

const selected = selectPackages(process.argv.slice(2)).filter((p) => !p.manifest.private)
for (const { directory, manifest } of selected) {
  const out = join(root, directory, 'dist')
  rmSync(out, { recursive: true, force: true })
  const entries = Object.values(manifest.exports ?? {}).flatMap((target) => target['idemq-source'] ?? [])
  const built =
    run('tsup', [
      ...entries.map((entry) => join(directory, entry)),
      '--format=esm',
      '--target=node22',
      '--no-config',
      `--out-dir=${out}`,
    ]) &&
    run('tsc', [
      '-p',
      join(directory, 'tsconfig.json'),
      '--noEmit=false',
      '--emitDeclarationOnly',
      '--rewriteRelativeImportExtensions',
      `--rootDir=${join(directory, 'src')}`,
      `--outDir=${out}`,
    ])
  if (!built) process.exit(1)
}
console.log(`built ${selected.length} of ${packages.length} packages`)
