import { createHash } from 'node:crypto'
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { IdemqError } from '@idemq/core'
import { baseImage } from './base.ts'
import type { Engine } from './engine.ts'
import { fetchInto } from './fetch.ts'
import { finished, imageExists, tryPull } from './image-store.ts'
import { withLock } from './lock.ts'
import { ownerLabel } from './owner.ts'
import { step } from './report.ts'
import { type Server, type ServerName, servers } from './servers.ts'

/**
 * The image of a server, obtained where it is not there yet: pulled, else built from our own Dockerfile.
 * @throws IdemqError `MISSING_PACKAGE` saying why neither worked and what would help.
 */
export async function serverImage(engine: Engine, name: ServerName): Promise<string> {
  const server: Server = servers[name]
  const built = `idemq-bed/${name}:${recipeOf(name)}`
  const candidates = server.image === undefined ? [built] : [server.image, built]
  const present = async (): Promise<string | undefined> => {
    for (const image of candidates) if (await imageExists(engine, image)) return image
    return undefined
  }
  return (
    (await present()) ??
    (await withLock(`image-${name}`, async () => (await present()) ?? (await obtain(engine, name, server, built))))
  )
}

async function obtain(engine: Engine, name: ServerName, server: Server, built: string): Promise<string> {
  const noPull = server.image === undefined ? 'none is published' : await tryPull(engine, server.image)
  if (server.image !== undefined && noPull === undefined) return server.image
  try {
    await step(`building ${built}`, () => build(engine, name, server, built))
    return built
  } catch (error) {
    throw new IdemqError(
      'MISSING_PACKAGE',
      `no image for ${name}. Pulling ${server.image ?? 'an ordinary image'}: ${noPull}. Building it: ${(error as Error).message}\n` +
        `Let the engine reach an image registry, or load the image by hand${server.image ? ` (docker load) as ${server.image}` : ''}, ` +
        `or run as root on Debian with its package mirror reachable`,
      error,
    )
  }
}

async function build(engine: Engine, name: ServerName, server: Server, tag: string): Promise<void> {
  const context = mkdtempSync(join(tmpdir(), 'idemq-bed-image-'))
  try {
    for (const folder of foldersOf(name)) cpSync(folder, context, { recursive: true })
    if (server.fetch) await fetchInto(context, server.fetch)
    const docker = engine.client.container.dockerode
    const stream = await docker.buildImage(
      { context, src: readdirSync(context) },
      {
        t: tag,
        buildargs: { BASE: await baseFor(engine, name) },
        labels: { [ownerLabel]: '' },
        rm: true,
        forcerm: true,
      },
    )
    await finished(engine, stream)
    await removeOlder(engine, tag)
  } finally {
    rmSync(context, { recursive: true, force: true })
  }
}

async function baseFor(engine: Engine, name: ServerName): Promise<string> {
  if (!readFileSync(join(foldersOf(name)[0]!, 'Dockerfile'), 'utf8').includes('ARG BASE')) return 'scratch'
  const base = await baseImage(engine)
  if (base !== undefined) return base
  throw new IdemqError('MISSING_PACKAGE', 'no base image can be pulled, and bootstrapping one takes root on Debian')
}

/** Drops what earlier versions of the same Dockerfile left. */
async function removeOlder(engine: Engine, tag: string): Promise<void> {
  const docker = engine.client.container.dockerode
  const images = await docker.listImages({ filters: { reference: [tag.split(':')[0]!] } })
  for (const old of images.flatMap(({ RepoTags }) => RepoTags ?? []).filter((other) => other !== tag)) {
    // One that a container of another process still runs on stays for now.
    await docker
      .getImage(old)
      .remove()
      .catch(() => undefined)
  }
}

/** Where the Dockerfiles are, from the sources and from the published package alike. */
const images: string = join(
  dirname(createRequire(import.meta.url).resolve('@idemq/conformance/package.json')),
  'images',
)

/** What its image is built from: a later folder's files win. */
function foldersOf(name: ServerName): string[] {
  const { variantOf }: Server = servers[name]
  return [...(variantOf ? foldersOf(variantOf) : []), join(images, name)]
}

/** Names the content of a server's folders, so that a changed Dockerfile is built anew. */
function recipeOf(name: ServerName): string {
  const hash = createHash('sha256')
  for (const folder of foldersOf(name)) {
    for (const file of readdirSync(folder).sort()) hash.update(file).update(readFileSync(join(folder, file)))
  }
  return hash.digest('hex').slice(0, 12)
}
