import { randomBytes } from 'node:crypto'
import { performance } from 'node:perf_hooks'
import { setTimeout as delay } from 'node:timers/promises'
import { IdemqError } from '@idemq/core'
import { type ContainerRuntimeClient, GenericContainer, type WaitStrategy } from 'testcontainers'
import { type Engine, networkName } from './engine.ts'
import { serverImage } from './image.ts'
import { owner, ownerLabel, removeWhenThisProcessEnds } from './owner.ts'
import { freePort } from './port.ts'
import { answers } from './probe.ts'
import { type Place, type Server, type ServerName, servers } from './servers.ts'

/** How a server in a container is driven. Its host, port and data stay the same until {@link ServerContainer.stop}. */
export interface ServerContainer {
  readonly host: string
  readonly port: number
  /** The server's further ports by their name. */
  readonly ports: Readonly<Record<string, number>>
  /** Ends the server in an orderly way, by SIGKILL after 10 s, and starts it again. Resolves when it serves. */
  restart(): Promise<void>
  /** SIGKILL to the server. Resolves when it is dead; it stays so until {@link ServerContainer.start}. */
  kill(): Promise<void>
  /** Starts a killed server again. Resolves when it serves. */
  start(): Promise<void>
  /** Freezes the server: connections stay open, nothing is answered. */
  pause(): Promise<void>
  unpause(): Promise<void>
  /** Removes the server and its data. Harmless twice; what is not stopped goes when this process ends. */
  stop(): Promise<void>
  /** Runs a program beside the server. @throws IdemqError `BROKER_UNAVAILABLE` with its output where it fails. */
  exec(command: string[]): Promise<string>
  /** The last lines that the server wrote. */
  logs(lines?: number): Promise<string>
}

export interface ContainerOptions {
  /** Added to the end of the server's command, where later settings win. */
  readonly args?: readonly string[] | ((at: Place) => readonly string[])
  /** Added to the server's environment. */
  readonly env?: Readonly<Record<string, string>>
  /** Files to put into the container before it starts: path to content. */
  readonly files?: Readonly<Record<string, string>>
}

/** As testcontainers hands it out: the engine's own client of one container. */
type Container = ReturnType<ContainerRuntimeClient['container']['getById']>

interface Started extends ServerContainer {
  readonly image: string
  /** Where other containers of the bed reach it. */
  readonly inner: { readonly host: string; readonly port: number }
  /** The port of this machine to which a proxy passes on, and the one at which the server expects that proxy. */
  readonly upstreamPort: number
  readonly proxyPort: number
}

/** Starts one server, where it is told or somewhere free, and waits until it serves. */
export async function startContainer(
  engine: Engine,
  name: ServerName,
  options: ContainerOptions = {},
  given?: Place,
): Promise<Started> {
  const server: Server = servers[name]
  if (server.onLoopback && !engine.sharesLoopback) {
    throw new IdemqError(
      'UNSUPPORTED',
      `${name} runs on this machine's own network, which takes an engine on Linux that is neither remote nor rootless`,
    )
  }
  const image = await serverImage(engine, name)
  removeWhenThisProcessEnds()
  const at = given ?? (await freePlace(engine, name))
  const { host, port, hostname } = at
  const { command, env } = server
  const builder = new PublishedOn(host, image)
    .withLabels({ [ownerLabel]: owner })
    .withAutoCleanup(false)
    .withNetworkMode(server.onLoopback ? 'host' : networkName)
    .withEnvironment({ ...(typeof env === 'function' ? env(at) : env), ...options.env })
    .withCommand([command, options.args ?? []].flatMap((part) => (typeof part === 'function' ? part(at) : part)))
    .withCopyContentToContainer(Object.entries(options.files ?? {}).map(([target, content]) => ({ target, content })))
    .withWaitStrategy(noWait)
  if (!server.onLoopback) {
    const inside = { ...server.ports, main: server.port }
    const outside: Record<string, number> = { ...at.ports, main: port }
    builder
      .withName(hostname)
      .withExposedPorts(...Object.entries(inside).map(([key, container]) => ({ container, host: outside[key]! })))
  }
  const started = await builder.start()
  const container = engine.client.container.getById(started.getId())
  const serves = (): Promise<void> => untilServing(container, name, host, port)
  const stop = async (): Promise<void> => {
    await container.remove({ force: true, v: true }).catch((error: { statusCode?: number }) => {
      // Gone already, or going.
      if (error.statusCode !== 404 && error.statusCode !== 409) throw error
    })
  }
  await serves().catch(async (error) => {
    await stop()
    throw error
  })
  return {
    image,
    inner: { host: hostname, port: server.onLoopback ? port : server.port },
    upstreamPort: at.ports.proxied ?? port,
    proxyPort: at.proxyPort,
    host,
    port,
    ports: at.ports,
    async restart() {
      await container.restart({ t: 10 })
      await serves()
    },
    async kill() {
      await container.kill()
      await container.wait({ condition: 'not-running' })
    },
    async start() {
      await container.start()
      await serves()
    },
    async pause() {
      await container.pause()
    },
    async unpause() {
      await container.unpause()
    },
    stop,
    async exec(command) {
      const { exitCode, output } = await started.exec(command)
      if (exitCode === 0) return output
      throw new IdemqError('BROKER_UNAVAILABLE', `${command.join(' ')} in ${name} ended with ${exitCode}: ${output}`)
    },
    logs: (lines = 30) => lastLog(container, lines),
  }
}

/** A place for a server that nobody else has. */
export async function freePlace({ address: host }: Engine, name: ServerName): Promise<Place> {
  const server: Server = servers[name]
  const hostname = server.onLoopback ? host : `idemq-bed-${name}-${randomBytes(4).toString('hex')}`
  const ports: Record<string, number> = {}
  for (const key of Object.keys(server.ports ?? {})) ports[key] = await freePort(host)
  return { host, hostname, ports, port: await freePort(host), proxyPort: await freePort(host) }
}

/** testcontainers publishes on every address of the machine: a test server belongs on one. */
class PublishedOn extends GenericContainer {
  readonly #address: string
  constructor(address: string, image: string) {
    super(image)
    this.#address = address
  }
  protected override async beforeContainerCreated(): Promise<void> {
    for (const bindings of Object.values(this.hostConfig.PortBindings ?? {})) {
      for (const binding of bindings as { HostIp?: string }[]) binding.HostIp = this.#address
    }
  }
}

/** We ask the server itself, at its start and after each later one. */
const noWait: WaitStrategy = {
  waitUntilReady: async () => {},
  withStartupTimeout: () => noWait,
  isStartupTimeoutSet: () => true,
  getStartupTimeout: () => 0,
}

async function untilServing(container: Container, name: ServerName, host: string, port: number): Promise<void> {
  const { probe, readyMs = 30_000 }: Server = servers[name]
  const deadline = performance.now() + readyMs
  let running = true
  while (running && performance.now() < deadline) {
    if (await answers(host, port, probe, 2_000)) return
    await delay(20)
    running = (await container.inspect()).State.Running
  }
  const what = running ? `does not serve after ${readyMs} ms` : 'ended before it served'
  throw new IdemqError('BROKER_UNAVAILABLE', `${name} ${what}. The end of its log:\n${await lastLog(container, 20)}`)
}

async function lastLog(container: Container, lines: number): Promise<string> {
  const frames = await container.logs({ follow: false, stdout: true, stderr: true, tail: lines })
  let text = ''
  // Each frame: one byte for the stream, three unused, four for the length, then the bytes.
  for (let at = 0; at + 8 <= frames.length; ) {
    const end = at + 8 + frames.readUInt32BE(at + 4)
    text += frames.toString('utf8', at + 8, end)
    at = end
  }
  return text
}
