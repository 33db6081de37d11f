import { execFile } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { inspect, promisify } from 'node:util'
import { memory } from '@idemq/memory'
import { describe, expect, it, onTestFinished } from 'vitest'
import type { AdapterContext, OpenUrl } from './adapter.ts'
import { ManualClock } from './clock.ts'
import { connectAdapter, openStores } from './connect-adapter.ts'

const context: AdapterContext = { clock: new ManualClock() }
const refusalOf = (target: string): Promise<{ code: string; message: string }> =>
  connectAdapter(target, context, {}).then(
    () => {
      throw new Error('it connected')
    },
    (error) => error,
  )

describe('connectAdapter', () => {
  it('refuses what is no URL without repeating a password in it, anywhere in the error', async () => {
    for (const text of ['amqp//user:hunter2@host', 'http://[hunter2', ':hunter2@', 'hunter2', '']) {
      const error = await refusalOf(text)
      expect(error).toMatchObject({ name: 'IdemqError', code: 'INVALID_URL' })
      expect(error.message).toContain('sqlite:')
      expect(inspect(error, { depth: 10 }).replace(/^\s+at .*$/gm, '')).not.toContain('hunter2')
    }
  })

  it('says which schemes it knows', async () => {
    for (const target of ['carrier-pigeon://loft', 'constructor:x', 'toString:x', 'valueOf:x', 'hasOwnProperty:']) {
      const error = await refusalOf(target)
      expect(error, target).toMatchObject({ name: 'IdemqError', code: 'UNKNOWN_SCHEME' })
      expect(error.message).toContain(`'${target.slice(0, target.indexOf(':')).toLowerCase()}:'`)
      expect(error.message).toContain('memory')
      expect(error.message).toContain('options.adapters')
    }
  })

  it('does not repeat the password of a URL of unknown scheme', async () => {
    const error = await refusalOf('carrier-pigeon://user:hunter2@loft')
    expect(inspect(error)).not.toContain('hunter2')
  })

  it('gives the adapter one host, and what further hosts the URL names as a parameter', async () => {
    const urls: URL[] = []
    const own = async (): Promise<{ openUrl: OpenUrl }> => ({
      openUrl: async (url) => {
        urls.push(url)
        return memory({ clock: context.clock })
      },
    })
    for (const url of ['own://u:p,w@one:1,two:2,[::1]:3/path?a=b', 'own://one,two', 'own://u:p,w@one']) {
      await connectAdapter(url, context, { own })
    }
    expect(urls.map(({ username, password, host }) => [username, password, host])).toEqual([
      ['u', 'p,w', 'one:1'],
      ['', '', 'one'],
      ['u', 'p,w', 'one'],
    ])
    expect(
      urls.map(({ pathname, searchParams }) => [pathname, searchParams.get('hosts'), searchParams.get('a')]),
    ).toEqual([
      ['/path', 'two:2,[::1]:3', 'b'],
      ['', 'two', null],
      ['', null, null],
    ])
  })

  it('asks options.adapters first, with the parsed URL and the clock', async () => {
    const seen: unknown[] = []
    const loaders = {
      memory: async () => ({
        openUrl: async (url: URL, given: AdapterContext) => {
          seen.push(url.pathname, given)
          return memory()
        },
      }),
      'x-own': async () => ({ openUrl: async () => memory() }),
    }
    await connectAdapter('memory:mine', context, loaders)
    expect(seen).toEqual(['mine', context])
    expect((await connectAdapter(new URL('x-own://h'), context, loaders)).driver.name).toBe('memory')
  })

  it('passes on what a loader or an adapter says', async () => {
    const loaders = { own: () => Promise.reject(new Error('not built for this platform')) }
    await expect(connectAdapter('own:', context, loaders)).rejects.toThrow('not built for this platform')
    await expect(connectAdapter('memory:?size=1', context, {})).rejects.toMatchObject({ code: 'INVALID_OPTION' })
  })
})

describe('openStores', () => {
  it('opens the inbox and outbox behind a URL', async () => {
    const { inbox, outbox } = await openStores('memory:')
    expect(inbox?.name).toBe('memory')
    expect(outbox).toBeUndefined()
    await expect(openStores('nonsense')).rejects.toMatchObject({ code: 'INVALID_URL' })
  })
})

describe('a program somewhere else', () => {
  const core = new URL('./index.ts', import.meta.url).href

  /** Runs `connect('sqlite:x')` in a directory that has `files`; returns what became of it. */
  async function connectFrom(files: Record<string, string>): Promise<Record<string, unknown>> {
    const directory = mkdtempSync(join(tmpdir(), 'idemq-connect-'))
    onTestFinished(() => rmSync(directory, { recursive: true, force: true }))
    const program = `import { connect } from '${core}'
      const done = await connect('sqlite:x').then(
        (mq) => ({ driver: mq.driver.name }),
        ({ code, message }) => ({ code, message }),
      )
      console.log(JSON.stringify(done))`
    for (const [path, text] of Object.entries({ 'main.mjs': program, ...files })) {
      mkdirSync(join(directory, path, '..'), { recursive: true })
      writeFileSync(join(directory, path), text)
    }
    const options = ['--conditions=idemq-source', '--disable-warning=ExperimentalWarning', 'main.mjs']
    const { NODE_PATH: _, ...env } = process.env
    const { stdout } = await promisify(execFile)(process.execPath, options, { cwd: directory, env })
    return JSON.parse(stdout)
  }

  const manifest = JSON.stringify({
    name: '@idemq/sqlite',
    type: 'module',
    exports: { '.': { default: './index.js' } },
  })

  it('is told which package to install', async () => {
    expect(await connectFrom({})).toEqual({
      code: 'MISSING_PACKAGE',
      message: "'sqlite:' needs the package @idemq/sqlite: npm install @idemq/sqlite",
    })
  })

  it('has the package found where the program is', async () => {
    const found = await connectFrom({
      'node_modules/@idemq/sqlite/package.json': manifest,
      'node_modules/@idemq/sqlite/index.js': `export const openUrl = async (url) => ({ driver: { name: 'found ' + url.pathname } })`,
    })
    expect(found).toEqual({ driver: 'found x' })
  })

  it('hears of what the package itself misses, not that it is missing', async () => {
    const broken = await connectFrom({
      'node_modules/@idemq/sqlite/package.json': manifest,
      'node_modules/@idemq/sqlite/index.js': `import 'a-native-client'`,
    })
    expect(broken).toMatchObject({ code: 'ERR_MODULE_NOT_FOUND', message: expect.stringContaining('a-native-client') })
  })
})
