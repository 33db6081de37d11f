import { inspect } from 'node:util'
import { systemClock } from '@idemq/core'
import { describe, expect, it } from 'vitest'
import { openUrl, type PostgresOptions, postgres } from './index.ts'

const url = 'postgres://u:secret@localhost/d'
const context = { clock: systemClock }

describe('options', () => {
  it.each<[what: string, options: PostgresOptions]>([
    ['neither url nor pool', {}],
    ['both', { url, pool: { connect: () => Promise.reject(new Error('unused')) } }],
    ['a schema that is no plain name', { url, schema: 'My Schema' }],
    ['too few connections', { url, maxConnections: 4 }],
    ['a pollMs of 0', { url, pollMs: 0 }],
    ['a fraction', { url, pollMs: 1.5 }],
    ['a body limit below the reserve', { url, maxBodyBytes: 16 * 1024 }],
    ['a body limit that pg cannot read', { url, maxBodyBytes: 256 * 1024 * 1024 }],
    ['no boolean', { url, listen: 'no' as unknown as boolean }],
  ])('refuse %s', (_what, options) => {
    expect(() => postgres(options)).toThrow(expect.objectContaining({ code: 'INVALID_OPTION' }))
  })

  it.each(['', 'nonsense', 'mysql://u:secret@localhost/d', 'postgres://u:secret@localhost:port/d', `${url}#x`])(
    'refuse %j as a URL, without its password',
    (target) => {
      let error: unknown
      try {
        postgres(target)
      } catch (thrown) {
        error = thrown
      }
      expect(error).toMatchObject({ code: 'INVALID_URL' })
      expect(inspect(error)).not.toContain('secret')
    },
  )
})

describe('openUrl', () => {
  it.each([
    'postgres://localhost/jobs',
    'postgresql://u:p%40ss@db.example:6432/jobs?schema=mq&pollMs=20&listen=false&maxConnections=5&maxBodyBytes=65536',
    'postgres:///jobs?host=/var/run/postgresql&sslmode=disable&application_name=x',
  ])('takes %s and connects to nothing', async (target) => {
    const { driver, inbox, outbox } = await openUrl(new URL(target), context)
    expect(driver.capabilities.delayGranularityMs).toBe(target.includes('pollMs=20') ? 20 : 100)
    expect(driver.capabilities.maxBodyBytes).toBe(target.includes('65536') ? 65_536 : 16 * 1024 * 1024)
    await driver.close()
    await inbox!.close()
    await outbox!.close()
  })

  it.each([
    'sslmod=require',
    'pollMs=',
    'pollMs=fast',
    'listen=maybe',
    'schema=A',
    'maxConnections=0',
    'sslpassword=secret',
  ])('refuses ?%s, naming what it knows or the range, and no password', async (query) => {
    await expect(openUrl(new URL(`${url}?${query}`), context)).rejects.toMatchObject({
      code: 'INVALID_OPTION',
      message: expect.not.stringContaining('secret'),
    })
  })
})
