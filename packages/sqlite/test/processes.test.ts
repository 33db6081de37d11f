import { type ChildProcess, spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { expect, it, onTestFinished } from 'vitest'
import { sqlite } from '../src/index.ts'
import { tempFile } from './temp-file.ts'

const { signal } = new AbortController()
const queue = { name: 'orders', group: 'default' }
const program = fileURLToPath(new URL('work.ts', import.meta.url))

interface Worker {
  readonly process: ChildProcess
  /** Every line it printed. */
  readonly lines: string[]
  readonly ended: Promise<void>
  readonly errors: () => string
}

function start(path: string, total: number, name: string): Worker {
  const flags = ['--conditions=idemq-source', '--disable-warning=ExperimentalWarning', '--experimental-strip-types']
  const child = spawn(process.execPath, [...flags, program, path, String(total), name], { stdio: 'pipe' })
  onTestFinished(() => void child.kill('SIGKILL'))
  const lines: string[] = []
  let text = ''
  let errors = ''
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
    const parts = (text + chunk).split('\n')
    text = parts.pop()!
    lines.push(...parts)
  })
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
    errors += chunk
  })
  const ended = new Promise<void>((resolve) => child.on('close', () => resolve()))
  return { process: child, lines, ended, errors: () => errors }
}

async function until(condition: () => Promise<boolean> | boolean, workers: readonly Worker[]): Promise<void> {
  while (!(await condition())) {
    for (const { errors } of workers) expect(errors()).toBe('')
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

it('four processes send and work at once, two are killed on the way: every job is completed exactly once', async () => {
  const path = tempFile()
  const total = 2_000
  const names = ['a', 'b', 'c', 'd']
  const workers = names.map((name) => start(path, total, name))
  await until(() => workers.every(({ lines }) => lines.includes('sent')), workers)
  // Killed while they hold leases and claims, whatever they are doing.
  for (const { process: child, ended } of workers.slice(0, 2)) {
    child.kill('SIGKILL')
    await ended
  }
  const { driver } = sqlite(path)
  onTestFinished(() => driver.close())
  await driver.declare(queue, 'check', signal)
  await until(async () => {
    const { ready, delayed, inFlight } = await driver.stats(queue, signal)
    return ready === 0 && delayed === 0 && inFlight === 0
  }, workers)
  for (const { process: child, ended } of workers.slice(2)) {
    child.kill('SIGKILL')
    await ended
  }
  const done = workers.flatMap(({ lines }) => lines.filter((line) => line.startsWith('done ')))
  expect(new Set(done).size).toBe(done.length)
  const expected = names.flatMap((name) => Array.from({ length: total / 4 }, (_, i) => `done ${name}.${i}`))
  // A process killed between the commit and its line completed a job that nobody printed: at most one batch each.
  const unprinted = expected.filter((line) => !done.includes(line))
  expect(unprinted.length).toBeLessThanOrEqual(20)
  const { inbox } = sqlite(path)
  onTestFinished(() => inbox.close())
  const requests = unprinted.map((line) => {
    const key = line.slice('done '.length)
    return { scope: 's', key, fingerprint: 'f', jobId: key, replay: 0, attempt: 1 }
  })
  const answers = await inbox.claim(requests, { leaseMs: 1_000, retentionMs: 1_000 }, signal)
  expect(answers.map(({ status }) => status)).toEqual(requests.map(() => 'completed'))
})
