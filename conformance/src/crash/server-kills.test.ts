import { expect, it } from 'vitest'
import { killServer } from './server-kills.ts'

it('kills in each equal part of the run, starts again before the next, and is behind when a part passed without', async () => {
  const happened: string[] = []
  let killed = 0
  const rest = new Promise<void>((resolve) => setTimeout(resolve, 20))
  const server = {
    kill: async () => void happened.push(`kill at ${killed}`),
    start: async () => {
      await rest
      happened.push('start')
    },
    restart: async () => {},
    proxy: () => Promise.reject(new Error('no network here')),
  }
  const over = new AbortController()
  const kills = 40
  const kill = killServer({ server, count: 4, seed: 1, kills, killed: () => killed, signal: over.signal })
  expect(kill.isBehind()).toBe(false)
  // As a campaign does: no process dies while the server is behind.
  while (!kill.isDone()) {
    if (!kill.isBehind()) killed++
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
  over.abort()
  await kill.ended
  expect(kill.done()).toBe(4)
  const parts = happened.flatMap((what) => (what === 'start' ? [] : [Math.ceil(Number(what.split(' ')[2]) / 10)]))
  expect(parts).toEqual([1, 2, 3, 4])
  expect(happened.filter((_, i) => i % 2 === 1)).toEqual(['start', 'start', 'start', 'start'])
})

it('leaves a server that it killed running, however early the run is over', async () => {
  const over = new AbortController()
  let up = true
  const server = {
    async kill() {
      up = false
      over.abort()
    },
    async start() {
      up = true
    },
    restart: async () => {},
    proxy: () => Promise.reject(new Error('no network here')),
  }
  const kill = killServer({ server, count: 9, seed: 1, kills: 9, killed: () => 9, signal: over.signal })
  await kill.ended
  expect({ up, done: kill.done() }).toEqual({ up: true, done: 1 })
})
