// The one entry point of every root script. It runs on the system's Node (20 or newer, no dependency), installs what
// the lockfile pins when that is missing, and hands over to the pinned Node in node_modules/.bin.
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { delimiter, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** Not `packageManager` in package.json: pnpm would then want itself in the lockfile, and write it only unasked. */
const packageManager = 'pnpm@12.21.0'
const root = dirname(dirname(fileURLToPath(import.meta.url)))
const bin = join(root, 'node_modules/.bin')
const [command = 'help', ...args] = process.argv.slice(2)

/** Each root script: the program in node_modules/.bin and its arguments. */
const commands = {
  demo: ['node', script('../examples/demo/main.ts')],
  test: ['node', script('test.ts')],
  crash: ['node', script('crash.ts')],
  bench: ['node', script('bench.ts')],
  matrix: ['node', script('matrix.ts')],
  check: ['node', script('check.ts')],
  build: ['node', script('build.ts')],
  format: ['biome', ['check', '--write', '--config-path=.biome.json', '.']],
}

function script(name) {
  return ['--conditions=idemq-source', '--disable-warning=ExperimentalWarning', join(root, 'scripts', name)]
}

function install() {
  const lock = createHash('sha256')
    .update(readFileSync(join(root, 'pnpm-lock.yaml')))
    .digest('hex')
  const stamp = join(root, 'node_modules/.idemq-installed')
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === lock) return
  const startedAt = Date.now()
  console.log(`installing pinned dependencies with ${packageManager} …`)
  const done = spawnSync('npx', ['--yes', packageManager, 'install', '--frozen-lockfile'], {
    cwd: root,
    encoding: 'utf8',
    env: { ...process.env, CI: 'true' },
    shell: process.platform === 'win32',
  })
  if (done.status !== 0) {
    console.error(`${done.stdout ?? ''}${done.stderr ?? ''}${done.error ?? ''}`)
    console.error(
      'install failed: check that npm works here and that its registry is reachable, then run the command again',
    )
    process.exit(1)
  }
  writeFileSync(stamp, lock)
  console.log(`installed in ${((Date.now() - startedAt) / 1000).toFixed(1)} s`)
}

if (!commands[command]) {
  console.error(`usage: npm run ${Object.keys(commands).join('|')} [-- arguments]`)
  process.exit(2)
}
install()
const [program, programArgs] = commands[command]
const run = spawnSync(join(bin, program), [...programArgs, ...args], {
  cwd: root,
  stdio: 'inherit',
  env: { ...process.env, PATH: `${bin}${delimiter}${process.env.PATH}` },
})
process.exit(run.status ?? 1)
