import { connect, defineJob, byJobId, type Clock } from './src/index.ts'
import * as z from 'zod'
import { sqlite } from '../sqlite/src/index.ts'
import { memory } from '../memory/src/index.ts'
import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
export { connect, defineJob, byJobId, z, sqlite, memory }
export const dir = () => mkdtempSync(join(tmpdir(), 'zzrev-'))
export const any = z.any()
export const sleep = (ms: number) => new Promise((r) => setTimeout(r, ms))
export function fast(k: number): Clock {
  const p0 = performance.now(), t0 = Date.now()
  return { now: () => t0 + (performance.now() - p0) * k, monotonicMs: () => performance.now() * k,
    schedule(cb, d, unref) { const t = setTimeout(cb, Math.min(d / k, 2 ** 31 - 1)); if (unref) t.unref(); return () => clearTimeout(t) } }
}
export const log = (...a: unknown[]) => console.log(...a)
