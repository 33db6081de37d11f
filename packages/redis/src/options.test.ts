import { systemClock } from '@idemq/core'
import { expect, it } from 'vitest'
import { openUrl, type RedisOptions, redis, redisInbox } from './index.ts'

const open = (url: string) => openUrl(new URL(url), { clock: systemClock })

it.each([
  'redis://127.0.0.1',
  'rediss://user:p%40ss@redis.example:6380/3',
  'valkey://[::1]:7000',
  'valkeys://127.0.0.1?prefix=shop&pollMs=5&maxBodyBytes=40000&answerTimeoutMs=500&baseline=true',
  'redis://127.0.0.1?cluster=true',
])('opens %s without reaching any server', async (url) => {
  const { driver, inbox } = await open(url)
  expect(driver.capabilities).toMatchObject({ durability: 'async', groups: true })
  await driver.close()
  await inbox?.close()
})

it('takes its durability and limits from the URL', async () => {
  const { driver, inbox } = await open('redis://127.0.0.1?durability=sync&maxBodyBytes=40000&pollMs=7')
  expect(driver.capabilities).toMatchObject({ durability: 'sync', maxBodyBytes: 40_000, delayGranularityMs: 7 })
  expect(inbox?.capabilities.durability).toBe('sync')
})

it.each([
  'redis:',
  'redis:///0',
  'redis://host/jobs',
  'redis://host/1#x',
  'redis://host/1?cluster=true',
  'http://host',
])('refuses %s with INVALID_URL', async (url) => {
  await expect(open(url)).rejects.toMatchObject({ code: 'INVALID_URL' })
})

it('never repeats a password', async () => {
  for (const url of [
    'redis://user:secret@host/jobs',
    'redis://user:secret@host?x=1',
    'redis://user:secret%E0%A4%A@h',
  ]) {
    await expect(open(url)).rejects.toThrow(expect.objectContaining({ message: expect.not.stringContaining('secret') }))
  }
  expect(() => redis('redis//user:secret@host')).toThrow(
    expect.objectContaining({ code: 'INVALID_URL', message: expect.not.stringContaining('secret') }),
  )
})

it.each([
  'pollMs=0',
  'pollMs=',
  'answerTimeoutMs=1',
  'maxBodyBytes=1',
  'durability=maybe',
  'cluster=1',
  'prefix=a{b',
  'x=1',
])('refuses ?%s with INVALID_OPTION', async (query) => {
  await expect(open(`redis://127.0.0.1?${query}`)).rejects.toMatchObject({
    code: 'INVALID_OPTION',
    message: expect.stringContaining(query.split('=')[0]!),
  })
})

it('wants a server, and only one', () => {
  for (const factory of [redis, redisInbox]) {
    const options: RedisOptions = {}
    expect(() => factory(options)).toThrow(expect.objectContaining({ code: 'INVALID_OPTION' }))
  }
})
