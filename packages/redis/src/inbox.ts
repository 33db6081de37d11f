/**
 * The inbox on Redis: one round trip a batch, one script for each scope in it. The fencing token is made here, of an id
 * of this process and a count: a sequence on the server could go back with the server's data, this cannot.
 */
import { randomBytes } from 'node:crypto'
import type { ClaimAnswer, ClaimEnd, ClaimRef, ClaimRequest, Held, InboxStore } from '@idemq/core'
import type { Argument, Script } from './connection.ts'
import { claimScript, endScript, recordScript, renewScript } from './inbox-scripts.ts'
import { rowKey } from './keys.ts'
import type { Session } from './session.ts'

type Answer = 0 | readonly [status: Buffer, value?: number | Buffer | null, crashed?: 0 | 1, steps?: readonly Buffer[]]

const incarnation = randomBytes(12).toString('base64url')
let claims = 0

export function redisInboxOn(session: Session, prefix: string): InboxStore {
  /** Runs `script` once for each scope, at once, and answers in the order of the batch. */
  async function eachScope<A>(
    what: string,
    batch: readonly Pick<ClaimRef, 'scope' | 'key'>[],
    signal: AbortSignal,
    script: Script,
    head: readonly Argument[],
    push: (args: Argument[], place: number) => void,
  ): Promise<A[]> {
    const answers = new Array<A>(batch.length)
    await Promise.all(
      placesByScope(batch).map(async (places) => {
        const keys = places.map((place) => rowKey(prefix, batch[place]!.scope, batch[place]!.key))
        const args = [...head]
        for (const place of places) push(args, place)
        const found = (await session.run(what, signal, script, keys, args)) as A[]
        for (let i = 0; i < places.length; i++) answers[places[i]!] = found[i]!
      }),
    )
    return answers
  }

  async function eachHeld<T extends ClaimRef>(
    what: string,
    batch: readonly T[],
    signal: AbortSignal,
    script: Script,
    head: readonly Argument[],
    push: (args: Argument[], item: T) => void,
  ): Promise<Held[]> {
    const answers = await eachScope<number>(what, batch, signal, script, head, (args, i) => push(args, batch[i]!))
    return answers.map((held) => (held === 1 ? 'held' : 'lost'))
  }

  return {
    name: 'redis',
    capabilities: { durability: session.options.durability, transactions: false, expiresItself: true },

    async prepare(_, signal) {
      await session.check(signal)
    },

    async claim(batch, { leaseMs, retentionMs }, signal) {
      const tokens = batch.map(() => `${incarnation}-${++claims}`)
      const head = [Math.ceil(leaseMs), Math.ceil(retentionMs)]
      const push = (args: Argument[], i: number): void => {
        const { fingerprint, jobId, replay, attempt } = batch[i]!
        args.push(tokens[i]!, fingerprint, jobId, replay, attempt)
      }
      const answers = await eachScope<Answer>('claim in the inbox', batch, signal, claimScript, head, push)
      return answers.map((answer, i) => claimAnswer(answer, tokens[i]!, batch[i]!))
    },

    async renew(batch, leaseMs, signal) {
      const push = (args: Argument[], { token }: ClaimRef): void => void args.push(token)
      return eachHeld('renew claims', batch, signal, renewScript, [Math.ceil(leaseMs)], push)
    },

    async record(batch, signal) {
      return eachHeld('record steps', batch, signal, recordScript, [], (args, { token, step, result }) => {
        args.push(token, step, result)
      })
    },

    async end(batch, retentionMs, signal) {
      return eachHeld('end claims', batch, signal, endScript, [Math.ceil(retentionMs)], (args, end) => {
        args.push(end.token, howItEnds(end))
      })
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

function placesByScope(batch: readonly { readonly scope: string }[]): number[][] {
  const places = new Map<string, number[]>()
  for (let i = 0; i < batch.length; i++) {
    const { scope } = batch[i]!
    const known = places.get(scope)
    if (known) known.push(i)
    else places.set(scope, [i])
  }
  return [...places.values()]
}

/** As {@link endScript} takes it. */
function howItEnds({ state, floor, free, holdMs, result }: ClaimEnd): string {
  if (state === 'completed') return `d${result ?? ''}`
  const heldMs = state === 'released' ? Math.ceil(holdMs) : 0
  return `${state === 'failed' ? 'f' : 'r'} ${floor} ${free ? 1 : 0} ${heldMs}`
}

function claimAnswer(answer: Answer, token: string, { attempt }: ClaimRequest): ClaimAnswer {
  if (answer === 0) return { status: 'claimed', token, attempt, crashed: false }
  const [status, value, crashed, steps = []] = answer
  switch (String(status)) {
    case 'claimed': {
      const claimed = { status: 'claimed', token, attempt: Number(value), crashed: crashed === 1 } as const
      return steps.length === 0 ? claimed : { ...claimed, steps: stepsOf(steps) }
    }
    case 'completed':
      return Buffer.isBuffer(value) ? { status: 'completed', result: String(value) } : { status: 'completed' }
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
