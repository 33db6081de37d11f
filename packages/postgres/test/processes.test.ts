import { type ChildProcess, spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { expect, it, onTestFinished } from 'vitest'
import { queue, signal, testServer } from './server.ts'

const { admin, url, start } = await testServer()
const program = fileURLToPath(new URL('work.ts', import.meta.url))

interface Worker {
  readonly process: ChildProcess
  /** Every line it printed. */
  readonly lines: string[]
  readonly ended: Promise<void>
  readonly errors: () => string
}

function startWorker(schema: string, total: number, name: string): Worker {
  const flags = ['--conditions=idemq-source', '--disable-warning=ExperimentalWarning', '--experimental-strip-types']
  const child = spawn(process.execPath, [...flags, program, url, schema, String(total), name], { stdio: 'pipe' })
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

it('four processes send and work at once, two are killed on the way: every job is completed exactly once', async () => {
  const { adapter, schema } = await start()
  const total = 2_000
  const names = ['a', 'b', 'c', 'd']
  const workers = names.map((name) => startWorker(schema, total, name))
  const until = async (condition: () => Promise<boolean> | boolean): Promise<void> => {
    await expect
      .poll(
        async () => {
          for (const { errors } of workers) expect(errors()).toBe('')
          return condition()
        },
        { timeout: 50_000 },
      )
      .toBe(true)
  }
  await until(() => workers.every(({ lines }) => lines.includes('sent')))
  // Killed while they hold leases and claims, whatever they are doing.
  for (const { process: child, ended } of workers.slice(0, 2)) {
    child.kill('SIGKILL')
    await ended
  }
  await until(async () => {
    const { ready, delayed, inFlight } = await adapter.driver.stats(queue, signal)
    return ready === 0 && delayed === 0 && inFlight === 0
  })
  for (const { process: child, ended } of workers.slice(2)) {
    child.kill('SIGKILL')
    await ended
  }
  const done = workers.flatMap(({ lines }) => lines.filter((line) => line.startsWith('done ')))
  expect(new Set(done).size).toBe(done.length)
  const expected = names.flatMap((name) => Array.from({ length: total / 4 }, (_, i) => `done ${name}.${i}`))
  // A process killed between the commit and its line completed jobs that nobody printed: at most one batch each.
  expect(expected.filter((line) => !done.includes(line)).length).toBeLessThanOrEqual(20)
  const completed = await admin.query(`SELECT count(*)::int AS n FROM ${schema}.inbox WHERE state = 'completed'`)
  expect(completed.rows).toEqual([{ n: total }])
  expect((await admin.query(`SELECT * FROM ${schema}.lane`)).rows).toEqual([])
})
