import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { aptInstall, canInstall, command, installed } from './command.ts'
import type { Engine } from './engine.ts'
import { finished, imageExists, tryPull } from './image-store.ts'
import { withLock } from './lock.ts'
import { step } from './report.ts'

const suite = 'trixie'
const ordinary = `debian:${suite}-slim`
const bootstrapped = `idemq-bed/base:${suite}-1`

/**
 * The Debian that our own images start from: the ordinary image, else one bootstrapped from Debian's packages.
 * Resolves to `undefined` where neither can be had.
 */
export async function baseImage(engine: Engine): Promise<string | undefined> {
  return (await present(engine)) ?? withLock('base', async () => (await present(engine)) ?? (await obtain(engine)))
}

async function present(engine: Engine): Promise<string | undefined> {
  for (const image of [ordinary, bootstrapped]) if (await imageExists(engine, image)) return image
  return undefined
}

async function obtain(engine: Engine): Promise<string | undefined> {
  if ((await tryPull(engine, ordinary)) === undefined) return ordinary
  if (!canInstall()) return undefined
  if (!installed('mmdebstrap')) await step('installing mmdebstrap by apt-get', () => aptInstall(['mmdebstrap']))
  await step(`making the base image ${bootstrapped} by mmdebstrap`, () => bootstrap(engine))
  return bootstrapped
}

async function bootstrap(engine: Engine): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'idemq-bed-base-'))
  try {
    const tar = join(directory, 'base.tar')
    await command('mmdebstrap', [
      '--variant=apt',
      '--mode=root',
      '--aptopt=Acquire::Languages "none"',
      '--dpkgopt=path-exclude=/usr/share/doc/*',
      '--dpkgopt=path-exclude=/usr/share/man/*',
      '--dpkgopt=path-exclude=/usr/share/locale/*',
      '--dpkgopt=force-unsafe-io',
      // No package starts its server while an image is built.
      `--customize-hook=printf '#!/bin/sh\\nexit 101\\n' > "$1/usr/sbin/policy-rc.d" && chmod +x "$1/usr/sbin/policy-rc.d"`,
      suite,
      tar,
    ])
    const [repo, tag] = bootstrapped.split(':') as [string, string]
    await finished(engine, await engine.client.container.dockerode.importImage(tar, { repo, tag }))
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}
