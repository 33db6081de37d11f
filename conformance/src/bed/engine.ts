import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { networkInterfaces } from 'node:os'
import { join } from 'node:path'
import { performance } from 'node:perf_hooks'
import { setTimeout as delay } from 'node:timers/promises'
import { IdemqError } from '@idemq/core'
import { type ContainerRuntimeClient, getContainerRuntimeClient } from 'testcontainers'
import { aptInstall, canInstall, installed, lastLines } from './command.ts'
import { stateDirectory, withLock } from './lock.ts'
import { owner, ownerLabel, startTime, sweep } from './owner.ts'
import { step } from './report.ts'

/** The network on which servers, and the proxies before them, reach each other by container name. */
export const networkName = 'idemq-bed'

export interface Engine {
  readonly client: ContainerRuntimeClient
  /** The IPv4 address on which ports are published, and no other: loopback where the engine is of this machine. */
  readonly address: string
  /** Whether a container on the engine's host network listens on this machine's own loopback. */
  readonly sharesLoopback: boolean
}

let current: Promise<Engine> | undefined

/**
 * The container engine of this machine: one that runs, or else dockerd, installed by apt-get and started with ports on
 * loopback only. It keeps running for the next process; {@link endEngine} ends one that the bed started.
 * @throws IdemqError `MISSING_PACKAGE` saying what is missing and how to get it.
 */
export function engine(): Promise<Engine> {
  current ??= prepare().catch((error) => {
    current = undefined
    throw error
  })
  return current
}

async function prepare(): Promise<Engine> {
  const client = (await find()) ?? (await withLock('engine', async () => (await find()) ?? (await bringUp())))
  const { hostIps } = client.info.containerRuntime
  const reachedAt = hostIps.find(({ family }) => family === 4)?.address ?? loopback
  // An engine that is reached at an address of this machine shares its network, and so its loopback.
  const ours = Object.values(networkInterfaces()).some((addresses) => addresses?.some((a) => a.address === reachedAt))
  const { OperatingSystem, SecurityOptions = [] } = await client.container.dockerode.info()
  const virtual = OperatingSystem === 'Docker Desktop' || SecurityOptions.includes('name=rootless')
  await sweep(client)
  await withLock('network', () => ensureNetwork(client))
  return {
    client,
    address: ours ? loopback : reachedAt,
    sharesLoopback: process.platform === 'linux' && ours && !virtual,
  }
}

const loopback = '127.0.0.1'

/** The engine that testcontainers finds, but none other than the one that DOCKER_HOST asks for. */
async function find(): Promise<ContainerRuntimeClient | undefined> {
  const before = process.env.TESTCONTAINERS_HOST_OVERRIDE
  // Ours is here, also where this machine looks like a container to testcontainers.
  if (before === undefined && rememberedPid() !== undefined) process.env.TESTCONTAINERS_HOST_OVERRIDE = loopback
  try {
    const client = await getContainerRuntimeClient()
    return isAskedFor(client) ? client : undefined
  } catch {
    return undefined
  } finally {
    if (before === undefined) delete process.env.TESTCONTAINERS_HOST_OVERRIDE
  }
}

function isAskedFor(client: ContainerRuntimeClient): boolean {
  const asked = process.env.DOCKER_HOST
  if (!asked) return true
  const { socketPath, host } = client.container.dockerode.modem as { socketPath?: string; host?: string }
  const url = new URL(asked)
  return socketPath === undefined ? host === url.hostname : socketPath === url.pathname
}

async function bringUp(): Promise<ContainerRuntimeClient> {
  const asked = process.env.DOCKER_HOST
  if (asked) {
    const advice = 'Start it, or unset DOCKER_HOST to use the engine of this machine'
    throw new IdemqError('MISSING_PACKAGE', `no container engine answers at DOCKER_HOST ${asked}. ${advice}`)
  }
  if (!canInstall()) {
    throw new IdemqError(
      'MISSING_PACKAGE',
      'no container engine answers, and this process cannot install one: that takes root on Debian with apt-get. ' +
        'Install and start Docker, see that "docker info" works for this user (or set DOCKER_HOST), and run the tests again',
    )
  }
  if (!installed('dockerd')) {
    await step('installing docker.io by apt-get', () => aptInstall(['docker.io']))
    // On a machine with a service manager the package has started it.
    const started = await find()
    if (started) return started
  }
  return step('starting dockerd', startDockerd)
}

async function startDockerd(): Promise<ContainerRuntimeClient> {
  const log = join(stateDirectory(), 'dockerd.log')
  const output = openSync(log, 'w')
  // Published ports by the kernel's own rules: the forwarder would copy every byte and end connections its own way.
  const child = spawn('dockerd', ['--ip', loopback, '--userland-proxy=false'], {
    detached: true,
    stdio: ['ignore', output, output],
  })
  child.unref()
  child.on('error', () => {})
  if (child.pid !== undefined) writeFileSync(pidFile(), `${child.pid} ${startTime(child.pid)}`)
  const deadline = performance.now() + 30_000
  while (performance.now() < deadline && !ended(child)) {
    const client = await find()
    if (client) return client
    await delay(50)
  }
  throw new IdemqError(
    'MISSING_PACKAGE',
    `dockerd does not start. The end of ${log}:\n${lastLines(readFileSync(log, 'utf8'), 10)}`,
  )
}

const ended = (child: ChildProcess): boolean => child.exitCode !== null || child.signalCode !== null

function pidFile(): string {
  return join(stateDirectory(), 'dockerd.pid')
}

/** The pid of the engine that the bed started, while that process runs. */
function rememberedPid(): number | undefined {
  if (!existsSync(pidFile())) return undefined
  const [pid, startedAt] = readFileSync(pidFile(), 'utf8').split(' ')
  return startTime(Number(pid)) === startedAt && startedAt !== '' ? Number(pid) : undefined
}

async function ensureNetwork(client: ContainerRuntimeClient): Promise<void> {
  const docker = client.container.dockerode
  const found = await docker.listNetworks({ filters: { name: [networkName] } })
  if (found.some(({ Name }) => Name === networkName)) return
  await docker.createNetwork({ Name: networkName, Labels: { [ownerLabel]: owner } })
}

/**
 * Ends the engine, where the bed started it and no server of another process runs on it. Images stay for the next run.
 * Resolves to whether it ended.
 */
export async function endEngine(): Promise<boolean> {
  return withLock('engine', async () => {
    const pid = rememberedPid()
    if (pid === undefined) return false
    const client = await find()
    if (client) {
      await sweep(client)
      const left = await client.container.dockerode.listContainers({ all: true, filters: { label: [ownerLabel] } })
      if (left.length > 0) return false
    }
    await step('ending dockerd', async () => {
      process.kill(pid, 'SIGTERM')
      while (rememberedPid() === pid) await delay(50)
    })
    rmSync(pidFile(), { force: true })
    current = undefined
    return true
  })
}
