import { expect, it } from 'vitest'
import { brokers, findBroker } from './brokers.ts'

it('finds a broker by its name, with its server or without', () => {
  const servers = brokers.filter(({ hasServer }) => hasServer).map(({ name }) => name)
  expect(servers).toEqual(['redis', 'valkey', 'postgres'])
  expect(findBroker('valkey')).toMatchObject({ name: 'valkey', adapterPackage: '@idemq/redis' })
  expect(findBroker('sqlite').hasServer).toBe(false)
})

it('finds the package for a URL by its scheme, and starts nothing there', async () => {
  const url = 'postgresql://localhost/jobs'
  const broker = findBroker(url)
  expect(broker).toMatchObject({ adapterPackage: '@idemq/postgres', hasServer: false })
  const running = await broker.start({ directory: '/nowhere' })
  expect(running).toMatchObject({ url })
  expect(running.server).toBeUndefined()
})

it.each(['oracle', 'oracle://localhost'])(
  'refuses %s, naming what is known and nothing of a URL but its scheme',
  (name) => {
    expect(() => findBroker(name)).toThrow(
      expect.objectContaining({ code: 'UNKNOWN_SCHEME', message: expect.stringMatching(/'oracle:?'.*postgres/) }),
    )
  },
)
