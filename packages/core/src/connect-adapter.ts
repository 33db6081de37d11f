import { createRequire } from 'node:module'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import type { Adapter, AdapterContext, OpenUrl } from './adapter.ts'
import { systemClock } from './clock.ts'
import { IdemqError } from './errors.ts'
import { packageOfScheme } from './registry.ts'
import type { InboxStore, OutboxStore } from './store.ts'

/** Loads an adapter package by URL scheme (without the colon). */
export type AdapterLoaders = Readonly<Record<string, () => Promise<{ readonly openUrl: OpenUrl }>>>

/** @throws IdemqError INVALID_URL, UNKNOWN_SCHEME, MISSING_PACKAGE, or what the adapter says */
export async function connectAdapter(
  target: string | URL,
  context: AdapterContext,
  loaders: AdapterLoaders,
): Promise<Adapter> {
  const url = parse(target)
  const scheme = url.protocol.slice(0, -1)
  const loader = Object.hasOwn(loaders, scheme) ? loaders[scheme] : undefined
  const { openUrl } = loader ? await loader() : await load(scheme)
  return openUrl(url, context)
}

/**
 * Opens the inbox and outbox behind a URL, for workers whose broker has none of its own.
 * @throws IdemqError as `connect` does
 */
export async function openStores(
  target: string | URL,
  options: { readonly adapters?: AdapterLoaders } = {},
): Promise<{ readonly inbox: InboxStore | undefined; readonly outbox: OutboxStore | undefined }> {
  const { inbox, outbox } = await connectAdapter(target, { clock: systemClock }, options.adapters ?? {})
  return { inbox, outbox }
}

/** `scheme://user@host`, the further hosts with commas between, the rest. */
const severalHosts = /^([a-z][a-z0-9+.-]*:\/\/(?:[^@/?#]*@)?[^,@/?#]+),([^@/?#]+)(.*)$/is

/** A URL has one host. Of several, `scheme://one,two,three`, the others become its parameter `hosts`. */
function parse(target: string | URL): URL {
  if (target instanceof URL) return target
  try {
    const [, first, others, rest] = severalHosts.exec(target) ?? []
    if (first === undefined || others === undefined) return new URL(target)
    const url = new URL(`${first}${rest}`)
    url.searchParams.set('hosts', others)
    return url
  } catch {
    // The text may hold a password: neither it nor Node's error, which has it as `input`, is repeated.
    throw new IdemqError('INVALID_URL', 'connect: not a URL; expected for instance sqlite:./jobs.db')
  }
}

async function load(scheme: string): Promise<{ openUrl: OpenUrl }> {
  const name = Object.hasOwn(packageOfScheme, scheme) ? packageOfScheme[scheme] : undefined
  if (!name) {
    const known = Object.keys(packageOfScheme).join(', ')
    throw new IdemqError(
      'UNKNOWN_SCHEME',
      `no adapter is known for '${scheme}:'; known: ${known}. Pass one in options.adapters`,
    )
  }
  try {
    return await import(name)
  } catch (cause) {
    if (!isMissing(cause, name)) throw cause
  }
  // A strict package manager shows core only its own dependencies: look from where the program is.
  for (const from of [process.argv[1], join(process.cwd(), 'package.json')]) {
    if (!from) continue
    let path: string
    try {
      path = createRequire(from).resolve(name)
    } catch (cause) {
      if (isMissing(cause, name)) continue
      throw cause
    }
    return await import(pathToFileURL(path).href)
  }
  throw new IdemqError('MISSING_PACKAGE', `'${scheme}:' needs the package ${name}: npm install ${name}`)
}

function isMissing(error: unknown, name: string): boolean {
  const { code, message } = error as { code?: string; message?: string }
  return (code === 'ERR_MODULE_NOT_FOUND' || code === 'MODULE_NOT_FOUND') && (message ?? '').includes(name)
}
