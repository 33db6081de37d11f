import { spawnSync } from 'node:child_process'
import { expect, test } from 'vitest'

const module = new URL('./index.ts', import.meta.url).href

function bedIn(env: Record<string, string>): { status: number | null; output: string } {
  const script = `import { bed } from ${JSON.stringify(module)}
    await bed('redis').catch((error) => { console.log(error.code, error.message); process.exitCode = 3 })`
  const run = spawnSync(process.execPath, [...process.execArgv, '--input-type=module', '-e', script], {
    env: { ...process.env, ...env },
    encoding: 'utf8',
  })
  return { status: run.status, output: run.stdout + run.stderr }
}

test('an engine that was asked for and does not answer is an error that says so, not another engine', () => {
  const { status, output } = bedIn({ DOCKER_HOST: 'tcp://127.0.0.1:1' })
  expect(status).toBe(3)
  expect(output).toContain('MISSING_PACKAGE no container engine answers at DOCKER_HOST tcp://127.0.0.1:1')
  expect(output).not.toContain('serves at')
}, 60_000)
