import { spawn, spawnSync } from 'node:child_process'
import { IdemqError } from '@idemq/core'

/** Whether a program of this name is on the PATH. */
export function installed(program: string): boolean {
  return spawnSync(program, ['--version'], { stdio: 'ignore' }).error === undefined
}

/** Runs a program of this machine to its end. @throws IdemqError `MISSING_PACKAGE` with the end of its output. */
export async function command(program: string, args: string[], options: { cwd?: string } = {}): Promise<void> {
  const child = spawn(program, args, {
    ...options,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive', CGO_ENABLED: '0', LC_ALL: 'C.UTF-8' },
  })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output = (output + text).slice(-4_000)
    })
  }
  const failure = await new Promise<string | undefined>((resolve) => {
    child.once('error', (error) => resolve(error.message))
    child.once('close', (code, signal) => resolve(code === 0 ? undefined : `ended with ${code ?? signal}`))
  })
  if (failure === undefined) return
  throw new IdemqError('MISSING_PACKAGE', `${program} ${args.join(' ')}: ${failure}\n${lastLines(output, 15)}`)
}

export function lastLines(text: string, lines: number): string {
  return text.trimEnd().split('\n').slice(-lines).join('\n')
}

/** Installs Debian packages. The host's own apt lock is waited for. */
export async function aptInstall(packages: string[]): Promise<void> {
  const wait = ['-o', 'DPkg::Lock::Timeout=300']
  await command('apt-get', [...wait, 'update', '-q'])
  await command('apt-get', [...wait, 'install', '-q', '-y', '--no-install-recommends', ...packages])
}

/** Whether this process may install packages and start an engine: root on a Debian. */
export function canInstall(): boolean {
  return process.platform === 'linux' && process.getuid?.() === 0 && installed('apt-get')
}
