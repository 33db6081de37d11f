import { systemClock } from '@idemq/core'
import { expect, it } from 'vitest'
import { kafka, openUrl } from './index.ts'

const open = (url: string) => openUrl(new URL(url), { clock: systemClock })

it.each([
  'kafka://127.0.0.1',
  'kafka://127.0.0.1:9092/',
  'kafka://one,two',
  'kafka://[::1]:9092',
  'kafka://one:9092?hosts=two:9093,three',
  'kafkas://user:p%40ss@broker.example:9093?saslMechanism=scram-sha-512&prefix=shop.&partitions=3',
])('opens %s without reaching any broker', async (url) => {
  const { driver, inbox } = await open(url)
  expect(driver.capabilities).toMatchObject({ durability: 'async', groups: true, returnsBy: 'rebalance' })
  expect(inbox).toBeUndefined()
  await driver.close()
})

it('takes several brokers with ports as text, which is no URL to others', async () => {
  await kafka('kafka://user:secret@one:9092,two:9093/?x').driver.close()
  await kafka({ client: { brokers: ['one:9092'] } }).driver.close()
})

it('takes its limits from the URL', async () => {
  const { driver } = await open('kafka://h?maxBodyBytes=40000&retentionMs=3600000&minInsyncReplicas=2')
  expect(driver.capabilities).toMatchObject({ durability: 'sync', maxBodyBytes: 40_000, retentionMs: 3_600_000 })
})

it.each([
  'http://host',
  'kafka:',
  'kafka:///x',
  'kafka://h/orders',
  'kafka://h#x',
  'kafka://h?hosts=a:b',
  'kafka://h,',
])('refuses %s with INVALID_URL', async (url) => {
  await expect(open(url)).rejects.toMatchObject({ code: 'INVALID_URL' })
})

it('never repeats a password', async () => {
  for (const url of ['kafka://u:secret@h/orders', 'kafka://u:secret@h?x=1', 'kafka://u:secret%E0%A4%A@h']) {
    await expect(open(url)).rejects.toThrow(expect.objectContaining({ message: expect.not.stringContaining('secret') }))
  }
  expect(() => kafka('kafka//u:secret@h')).toThrow(
    expect.objectContaining({ code: 'INVALID_URL', message: expect.not.stringContaining('secret') }),
  )
})

it.each([
  'partitions=0',
  'partitions=',
  'replicationFactor=1.5',
  'retentionMs=1',
  'maxBodyBytes=1',
  'sessionTimeoutMs=1',
  'answerTimeoutMs=1',
  'saslMechanism=magic',
  'prefix=a_b',
  'x=1',
  'replicationFactor=1&minInsyncReplicas=2',
])('refuses ?%s with INVALID_OPTION', async (query) => {
  await expect(open(`kafka://127.0.0.1?${query}`)).rejects.toMatchObject({
    code: 'INVALID_OPTION',
    message: expect.stringContaining(query.split('=')[0]!),
  })
})

it('wants a broker', () => {
  expect(() => kafka({})).toThrow(expect.objectContaining({ code: 'INVALID_OPTION' }))
})
