/**
 * The inbox on Redis: one round trip a batch, one script for each scope in it. The fencing token is made here, of an id
 * of this process and a count: a sequence on the server could go back with the server's data, this cannot.
 */
import { randomUUID } from 'node:crypto'
import type { ClaimAnswer, ClaimRef, Held, InboxStore } from '@idemq/core'
import type { Argument, Script } from './connection.ts'
import { claimScript, endScript, recordScript, renewScript } from './inbox-scripts.ts'
import { rowKey } from './keys.ts'
import type { Session } from './session.ts'

type Answer = readonly [status: Buffer, value?: number | Buffer | null, crashed?: 0 | 1, steps?: readonly Buffer[]]

const incarnation = randomUUID()
let claims = 0

export function redisInboxOn(session: Session, prefix: string): InboxStore {
  /** Runs `script` once for each scope, at once, and answers in the order of the batch. */
  async function eachScope<T extends { readonly scope: string; readonly key: string }, A>(
    what: string,
    batch: readonly T[],
    signal: AbortSignal,
    script: Script,
    head: readonly Argument[],
    each: (item: T) => readonly Argument[],
  ): Promise<A[]> {
    const scopes = Map.groupBy(batch, ({ scope }) => scope)
    const byScope = await Promise.all(
      [...scopes.values()].map(async (items) => {
        const keys = items.map(({ scope, key }) => rowKey(prefix, scope, key))
        return (await session.run(what, signal, script, keys, ...head, ...items.flatMap(each))) as A[]
      }),
    )
    if (byScope.length === 1) return byScope[0] as A[]
    const answers = new Map(
      [...scopes.values()].flatMap((items, at) => items.map((item, i) => [item, byScope[at]![i]!])),
    )
    return batch.map((item) => answers.get(item) as A)
  }

  async function eachHeld<T extends ClaimRef>(
    what: string,
    batch: readonly T[],
    signal: AbortSignal,
    script: Script,
    head: readonly Argument[],
    each: (item: T) => readonly Argument[],
  ): Promise<Held[]> {
    const answers = await eachScope<T, number>(what, batch, signal, script, head, each)
    return answers.map((held) => (held === 1 ? 'held' : 'lost'))
  }

  return {
    name: 'redis',
    capabilities: { durability: session.options.durability, transactions: false, expiresItself: true },

    async prepare(_, signal) {
      await session.check(signal)
    },

    async claim(batch, { leaseMs, retentionMs }, signal) {
      const tokens = new Map(batch.map((request) => [request, `${incarnation}-${++claims}`]))
      const head = [Math.ceil(leaseMs), Math.ceil(retentionMs)]
      const answers = await eachScope<(typeof batch)[number], Answer>(
        'claim in the inbox',
        batch,
        signal,
        claimScript,
        head,
        (request) => [tokens.get(request)!, request.fingerprint, request.jobId, request.replay, request.attempt],
      )
      return answers.map((answer, i) => claimAnswer(answer, tokens.get(batch[i]!)!))
    },

    async renew(batch, leaseMs, signal) {
      const head = [Math.ceil(leaseMs)]
      return eachHeld('renew claims', batch, signal, renewScript, head, ({ token }) => [token])
    },

    async record(batch, signal) {
      const each = (item: (typeof batch)[number]): Argument[] => [item.token, item.step, item.result]
      return eachHeld('record steps', batch, signal, recordScript, [], each)
    },

    async end(batch, retentionMs, signal) {
      return eachHeld(
        'end claims',
        batch,
        signal,
        endScript,
        [Math.ceil(retentionMs)],
        ({ token, state, floor, free, holdMs, result }) => [
          token,
          state,
          floor,
          free ? '1' : '0',
          Math.ceil(holdMs),
          result === undefined ? '0' : '1',
          result ?? '',
        ],
      )
    },

    /** Redis deletes rows itself when their retention ends. */
    async purge() {
      return 0
    },

    async close() {
      await session.connection.close()
    },
  }
}

function claimAnswer([status, value, crashed, steps = []]: Answer, token: string): ClaimAnswer {
  switch (String(status)) {
    case 'claimed': {
      const claimed = { status: 'claimed', token, attempt: Number(value), crashed: crashed === 1 } as const
      return steps.length === 0 ? claimed : { ...claimed, steps: stepsOf(steps) }
    }
    case 'completed':
      return value === null || value === undefined
        ? { status: 'completed' }
        : { status: 'completed', result: String(value) }
    case 'busy':
      return { status: 'busy', retryAfterMs: Number(value) }
    case 'stale':
      return { status: 'stale' }
    default:
      return { status: 'mismatch' }
  }
}

/** From { step, result … }. */
function stepsOf(flat: readonly Buffer[]): Record<string, string> {
  const entries: [string, string][] = []
  for (let i = 0; i + 1 < flat.length; i += 2) entries.push([String(flat[i]), String(flat[i + 1])])
  return Object.fromEntries(entries)
}
