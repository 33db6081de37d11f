import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { hostname } from 'node:os'
import { performance } from 'node:perf_hooks'
import { setTimeout as delay } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { engine } from './engine.ts'
import { serverImage } from './image.ts'
import { bed } from './index.ts'
import { ownerLabel, sweep } from './owner.ts'

const containers = async (label: string): Promise<string[]> => {
  const { client } = await engine()
  const found = await client.container.dockerode.listContainers({ all: true, filters: { label: [label] } })
  return found.map(({ Id }) => Id)
}

async function untilGone(label: string): Promise<void> {
  const deadline = performance.now() + 30_000
  while ((await containers(label)).length > 0) {
    expect(performance.now()).toBeLessThan(deadline)
    await delay(100)
  }
}

test('what a killed process started is removed, and what a living one started is not', async () => {
  const ours = await bed('redis')
  try {
    const module = new URL('./index.ts', import.meta.url).href
    const script = `import { bed } from ${JSON.stringify(module)}
      const server = await bed('redis')
      await server.proxy()
      console.log('up')
      setInterval(() => {}, 1000)`
    const child = spawn(process.execPath, [...process.execArgv, '--input-type=module', '-e', script], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    try {
      await once(child.stdout!, 'data')
      const label = (await ownersOf(child.pid!))[0]!
      expect(await containers(`${ownerLabel}=${label}`)).toHaveLength(2)
      child.kill('SIGKILL')
      await untilGone(`${ownerLabel}=${label}`)
    } finally {
      child.kill('SIGKILL')
    }
    expect(await ours.exec(['redis-cli', 'PING'])).toBe('PONG\n')
  } finally {
    await ours.stop()
  }
}, 300_000)

async function ownersOf(pid: number): Promise<string[]> {
  const { client } = await engine()
  const found = await client.container.dockerode.listContainers({ all: true, filters: { label: [ownerLabel] } })
  return found.map(({ Labels }) => Labels[ownerLabel] ?? '').filter((label) => label.split('/')[1] === String(pid))
}

test('a sweep removes what an ended process left, though its pid lives again', async () => {
  const ours = await bed('redis')
  try {
    const { client } = await engine()
    const Image = await serverImage(await engine(), 'redis')
    const label = `${hostname()}/${process.pid}/0`
    await client.container.dockerode.createContainer({ Image, Cmd: ['true'], Labels: { [ownerLabel]: label } })
    expect(await containers(`${ownerLabel}=${label}`)).toHaveLength(1)
    await sweep(client)
    expect(await containers(`${ownerLabel}=${label}`)).toHaveLength(0)
    expect(await ours.exec(['redis-cli', 'PING'])).toBe('PONG\n')
  } finally {
    await ours.stop()
  }
}, 300_000)
