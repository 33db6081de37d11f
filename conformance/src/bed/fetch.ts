import { join } from 'node:path'
import { aptInstall, canInstall, command, installed } from './command.ts'
import { step } from './report.ts'
import type { Server } from './servers.ts'

/**
 * Fetches what a server's image is built from into the build's context, through the ordinary client of its language,
 * which is installed first where it is missing and can be. `directory` is a copy of the server's folder in `images/`.
 */
export async function fetchInto(directory: string, fetch: NonNullable<Server['fetch']>): Promise<void> {
  if (fetch === 'maven') {
    await need('mvn', ['maven', 'default-jdk-headless'])
    const output = `-DoutputDirectory=${join(directory, 'lib')}`
    await command('mvn', ['-q', '-B', 'dependency:copy-dependencies', output], { cwd: directory })
  } else {
    await need('go', ['golang-go'])
    await command('go', ['build', '-mod=mod', '-trimpath', '-ldflags=-s -w', '-o', 'server', fetch.go], {
      cwd: directory,
    })
  }
}

async function need(program: string, packages: string[]): Promise<void> {
  if (installed(program) || !canInstall()) return
  await step(`installing ${packages.join(' and ')} by apt-get`, () => aptInstall(packages))
}
