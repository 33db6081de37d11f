import { performance } from 'node:perf_hooks'
import { type ContainerOptions, type ServerContainer, startContainer } from './container.ts'
import { engine } from './engine.ts'
import { serverImage } from './image.ts'
import { type BedProxy, startProxy } from './proxy.ts'
import { report, seconds } from './report.ts'
import { type Server, type ServerName, servers } from './servers.ts'

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
  const running = await engine()
  const { url }: Server = servers[name]
  await serverImage(running, name)
  const startedAt = performance.now()
  const { image, inner, upstreamPort, proxyPort, ...container } = await startContainer(running, name, options)
  const own = url(container.host, container.port)
  report(`${name} (${image}) serves at ${own}: ${seconds(startedAt)}`)
  let proxy: Promise<BedProxy> | undefined
  return {
    ...container,
    name,
    url: own,
    innerUrl: url(inner.host, inner.port),
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
