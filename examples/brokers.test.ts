/** The examples and the demo, unchanged, on brokers that are servers of their own. */
import { execFile } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { bed } from '@idemq/conformance/bed'
import { afterAll, describe, expect, it } from 'vitest'

const run = promisify(execFile)

describe.each(['redis', 'postgres'] as const)('by IDEMQ_URL on %s', async (name) => {
  const server = await bed(name)
  afterAll(() => server.stop())

  const directory = mkdtempSync(join(tmpdir(), 'idemq-example-'))
  afterAll(() => rmSync(directory, { recursive: true }))

  async function output(program: string, ...args: string[]): Promise<string> {
    const { stdout } = await run(process.execPath, [...process.execArgv, join(import.meta.dirname, program), ...args], {
      cwd: directory,
      env: { ...process.env, IDEMQ_URL: server.url, IDEMQ_DATA: directory },
    })
    return stdout
  }

  it('payments', async () => {
    const charges = /^(\d+) charges of (\d+) orders in the ledger$/m.exec(await output('payments/run.ts', '100'))
    expect(Number(charges?.[1])).toBeGreaterThan(50)
    expect(charges?.[1]).toBe(charges?.[2])
  })

  it('inventory and notifications', async () => {
    expect(await output('inventory/run.ts')).toMatch(/^\d+ reservations, \d+ notifications wait in the outbox$/m)
    expect(await output('notifications/run.ts')).toMatch(/messages sent so far/)
  })

  it('the demo', { timeout: 240_000 }, async () => {
    expect(await output('demo/main.ts')).toMatch(/^demo ok: orders=2000 charged=2000 doubled=0 lost=0 /m)
  })
})
