/** Builds what is published: ESM by tsup, types by tsc from the same sources. */
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { packages, root, run, selectPackages } from './workspace.ts'

const selected = selectPackages(process.argv.slice(2)).filter((p) => !p.manifest.private)
for (const { directory, manifest } of selected) {
  rmSync(join(root, directory, 'dist'), { recursive: true, force: true })
  const entries = Object.values(manifest.exports ?? {}).flatMap((target) => target['idemq-source'] ?? [])
  const types = ['--noEmit', 'false', '--emitDeclarationOnly', '--rewriteRelativeImportExtensions']
  const built =
    (await run('tsup', [...entries, '--config', join(root, 'scripts/tsup.config.ts')], directory)) &&
    (await run('tsc', ['-p', 'tsconfig.build.json', ...types, '--rootDir', 'src', '--outDir', 'dist'], directory))
  if (!built) process.exit(1)
}
console.log(`built ${selected.length} of ${packages.length} packages`)
