import { performance } from 'node:perf_hooks'
import { IdemqError } from '@idemq/core'
import { type ContainerOptions, freePlace, type ServerContainer, startContainer } from './container.ts'
import { type Engine, engine } from './engine.ts'
import { serverImage } from './image.ts'
import { type BedProxy, startProxy } from './proxy.ts'
import { report, seconds } from './report.ts'
import { type Place, type Server, type ServerName, servers } from './servers.ts'

/** A real server of its own in a container, at the same URL until `stop`. */
export interface BedServer extends ServerContainer {
  readonly name: ServerName
  readonly url: string
  /** The URL by which other servers of the bed reach this one, where it names itself no other way (Kafka does). */
  readonly innerUrl: string
  /** The toxiproxy before this server, healthy at first and one for all calls. It is stopped with the server. */
  proxy(): Promise<BedProxy>
}

/**
 * Starts a real server that nobody else uses, bringing up first what this machine lacks: the engine, the image. Each
 * step is one line on stderr with its time; a second run reuses what is there. Resolves when the server serves.
 *
 * Never skips. @throws IdemqError `MISSING_PACKAGE` where the engine or an image cannot be had, saying how to get it;
 * `BROKER_UNAVAILABLE` where the server does not become ready, with the end of its log.
 */
export async function bed(name: ServerName, options: ContainerOptions = {}): Promise<BedServer> {
  return start(await engine(), name, options)
}

/** Several servers that are one cluster. */
export interface BedCluster {
  readonly nodes: readonly BedServer[]
  /** Names every node. */
  readonly url: string
  /** Stops every node. */
  stop(): Promise<void>
}

/**
 * Starts `size` servers as one cluster, each with what {@link bed} gives. Resolves when all serve.
 * @throws IdemqError `UNSUPPORTED` for a server that makes no cluster, else as `bed` does
 */
export async function bedCluster(name: ServerName, size: number, options: ContainerOptions = {}): Promise<BedCluster> {
  const { clusterEnv, url }: Server = servers[name]
  if (!clusterEnv) throw new IdemqError('UNSUPPORTED', `the bed makes no cluster of ${name}`)
  const running = await engine()
  const places = await Promise.all(Array.from({ length: size }, () => freePlace(running, name)))
  const starting = places.map((place, index) =>
    start(running, name, { ...options, env: { ...clusterEnv(places, index), ...options.env } }, place),
  )
  const nodes = await Promise.all(starting).catch(async (error) => {
    for (const each of await Promise.allSettled(starting)) if (each.status === 'fulfilled') await each.value.stop()
    throw error
  })
  return {
    nodes,
    url: url(places.map(({ host, port }) => `${host}:${port}`).join(',')),
    async stop() {
      await Promise.all(nodes.map((node) => node.stop()))
    },
  }
}

async function start(running: Engine, name: ServerName, options: ContainerOptions, at?: Place): Promise<BedServer> {
  const { url }: Server = servers[name]
  await serverImage(running, name)
  const startedAt = performance.now()
  const { image, inner, upstreamPort, proxyPort, ...container } = await startContainer(running, name, options, at)
  const own = url(`${container.host}:${container.port}`)
  report(`${name} (${image}) serves at ${own}: ${seconds(startedAt)}`)
  let proxy: Promise<BedProxy> | undefined
  return {
    ...container,
    name,
    url: own,
    innerUrl: url(`${inner.host}:${inner.port}`),
    proxy() {
      proxy ??= startProxy(running, { host: container.host, port: upstreamPort }, proxyPort, url)
      return proxy
    },
    async stop() {
      await Promise.all([container.stop(), proxy?.then((started) => started.stop())])
    },
  }
}

/**
 * Brings up engine and images and starts nothing, so that the time of the bed is not the time of the first test. Two
 * images at a time: part of the work is waiting for the network.
 */
export async function prepareBed(names: readonly ServerName[]): Promise<void> {
  const running = await engine()
  // What is fetched by other clients first: that goes on while the base of all images is made.
  const waiting = [...names].sort((a, b) => Number(!servers[a].fetch) - Number(!servers[b].fetch))
  const prepare = async (): Promise<void> => {
    for (let name = waiting.shift(); name !== undefined; name = waiting.shift()) await serverImage(running, name)
  }
  await Promise.all([prepare(), prepare()])
}
