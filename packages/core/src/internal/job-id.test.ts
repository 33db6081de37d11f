import { version } from 'uuid'
import { afterEach, expect, it, vi } from 'vitest'
import { newJobId } from './job-id.ts'

afterEach(() => {
  vi.useRealTimers()
})

it('makes UUIDv7s that ascend and never repeat, also where the clock stands still or goes back', () => {
  vi.useFakeTimers({ toFake: ['Date'] })
  const ids = Array.from({ length: 2_000 }, (_, i) => {
    vi.setSystemTime(Date.UTC(2020, 0, 1) + (i < 1_000 ? 0 : 1_000 - i))
    return newJobId()
  })
  expect(ids).toEqual(ids.toSorted())
  expect(new Set(ids).size).toBe(ids.length)
  expect(new Set(ids.map(version))).toEqual(new Set([7]))
})

it('carries the time', () => {
  const before = Date.now()
  const ms = Number.parseInt(newJobId().replaceAll('-', '').slice(0, 12), 16)
  expect(ms).toBeGreaterThanOrEqual(before)
  expect(ms).toBeLessThanOrEqual(Date.now())
})
