import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, expect, test } from 'vitest'
import { stateDirectory, withLock } from './lock.ts'

const name = `test-${process.pid}`
afterAll(() => rmSync(join(stateDirectory(), `${name}.lock`), { force: true }))

/** Another process that holds the lock until it is killed. Resolves once it does. */
async function holder(): Promise<ChildProcess> {
  const module = new URL('./lock.ts', import.meta.url).href
  const script = `import { withLock } from ${JSON.stringify(module)}
    await withLock(${JSON.stringify(name)}, () => new Promise(() => { console.log('held'); setInterval(() => {}, 1000) }))`
  const child = spawn(process.execPath, [...process.execArgv, '--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  await once(child.stdout!, 'data')
  return child
}

test('one process at a time, and a killed holder frees it', async () => {
  const child = await holder()
  try {
    let entered = false
    const ours = withLock(name, async () => {
      entered = true
    })
    // Longer than the interval at which the lock is tried again.
    await delay(300)
    expect(entered).toBe(false)
    child.kill('SIGKILL')
    await ours
    expect(entered).toBe(true)
  } finally {
    child.kill('SIGKILL')
  }
})

test('calls of one process wait for each other, and a failure frees it', async () => {
  const order: string[] = []
  const first = withLock(name, async () => {
    order.push('first in')
    await delay(150)
    order.push('first out')
    throw new Error('failed inside')
  })
  const second = withLock(name, async () => order.push('second in'))
  await expect(first).rejects.toThrow('failed inside')
  await second
  expect(order).toEqual(['first in', 'first out', 'second in'])
})
