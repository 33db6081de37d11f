import { dirname } from 'node:path'
import { chdir, cwd } from 'node:process'
import { systemClock } from '@idemq/core'
import { expect, it, onTestFinished } from 'vitest'
import { tempFile } from '../test/temp-file.ts'
import { openUrl, sqlite, sqliteInbox, sqliteOutbox } from './index.ts'

const { signal } = new AbortController()
const queue = { name: 'orders', group: 'default' }

async function openAndClose(url: string): Promise<string> {
  const { driver } = await openUrl(new URL(url), { clock: systemClock })
  await driver.declare(queue, 'create', signal)
  await driver.close()
  return driver.capabilities.durability
}

it('opens absolute, relative and percent-encoded paths, with options', async () => {
  const path = tempFile()
  expect(await openAndClose(`sqlite:${path}`)).toBe('sync')
  expect(await openAndClose(`sqlite://${path}?synchronous=normal&pollMs=5&busyTimeoutMs=0&maxBodyBytes=40000`)).toBe(
    'async',
  )
  expect(await openAndClose(`sqlite:${dirname(path)}/with%20space.db`)).toBe('sync')
  const before = cwd()
  chdir(dirname(path))
  onTestFinished(() => chdir(before))
  const { driver } = await openUrl(new URL('sqlite:./jobs.db'), { clock: systemClock })
  await driver.declare(queue, 'check', signal)
  await driver.close()
})

it.each(['sqlite:', 'sqlite:/', 'sqlite::memory:', 'sqlite://host/jobs.db', 'sqlite:./jobs.db#x', 'sqlite:./%E0%A4%A'])(
  'refuses %s with INVALID_URL',
  async (url) => {
    await expect(openUrl(new URL(url), { clock: systemClock })).rejects.toMatchObject({ code: 'INVALID_URL' })
  },
)

it.each([
  'busyTimeoutMs=-1',
  'busyTimeoutMs=',
  'pollMs=0',
  'pollMs=1.5',
  'pollMs=Infinity',
  'busyTimeoutMs=NaN',
  'maxBodyBytes=Infinity',
  'synchronous=off',
  'maxBodyBytes=1',
  'mode=ro',
])('refuses ?%s with INVALID_OPTION', async (query) => {
  await expect(openUrl(new URL(`sqlite:./jobs.db?${query}`), { clock: systemClock })).rejects.toMatchObject({
    code: 'INVALID_OPTION',
    message: expect.stringContaining(query.split('=')[0]!),
  })
})

it('refuses the same in every factory', () => {
  for (const factory of [sqlite, sqliteInbox, sqliteOutbox]) {
    expect(() => factory(':memory:')).toThrow(expect.objectContaining({ code: 'INVALID_URL' }))
    expect(() => factory('')).toThrow(expect.objectContaining({ code: 'INVALID_OPTION' }))
    for (const pollMs of [Number.NaN, Number.POSITIVE_INFINITY, 1.5, '15' as unknown as number]) {
      for (const option of ['pollMs', 'busyTimeoutMs']) {
        expect(() => factory({ path: 'jobs.db', [option]: pollMs })).toThrow(
          expect.objectContaining({ code: 'INVALID_OPTION', message: expect.stringContaining(option) }),
        )
      }
    }
  }
})
