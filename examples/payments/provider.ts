/**
 * A payment provider: a process of its own that speaks HTTP and honours an `Idempotency-Key` the way Stripe does
 * (docs.stripe.com/api/idempotent_requests). The same key with the same request gets the same answer, declines too;
 * 409 while a request with the key is running; 422 for another request under the key. An answer counts as given once it
 * is in the ledger, whether or not the caller heard it.
 *
 * Run: node --conditions=idemq-source payments/provider.ts [--ledger file] [--port n] [--seed n] [--bad-day]
 */
import { createHash } from 'node:crypto'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { z } from 'zod'
import { type Behaviour, badDay, conductOf, wellBehaved } from './behaviour.ts'
import { type Ledger, openLedger } from './ledger.ts'

export interface ProviderOptions {
  /** File of the ledger. */
  readonly ledgerPath: string
  /** @default wellBehaved */
  readonly behaviour?: Behaviour
  /** Repeats the choices of a run. @default 1 */
  readonly seed?: number
  /** 0 = any free one. @default 0 */
  readonly port?: number
}

export interface Provider {
  readonly url: string
  close(): Promise<void>
}

/** What the provider counted since it started. */
export interface ProviderStats {
  readonly calls: number
  /** Answered from the ledger: the caller had asked before. */
  readonly sameAnswer: number
  readonly unavailable: number
  /** Charged, then cut without an answer. */
  readonly cut: number
  readonly refusedWhileRunning: number
}

const chargeRequest = z.strictObject({
  orderId: z.string().min(1),
  amountCents: z.int().min(1),
  card: z.string().min(1),
})

interface Answer {
  readonly status: number
  readonly body: string
  readonly headers?: Record<string, string>
}

/** Starts a provider on 127.0.0.1. */
export async function startProvider(options: ProviderOptions): Promise<Provider> {
  const ledger = openLedger(options.ledgerPath)
  const desk = chargeDesk(ledger, options.behaviour ?? wellBehaved, options.seed ?? 1)
  const server = createServer((request, response) => {
    route(request, desk, ledger).then(
      (answer) => send(response, answer),
      (error: Error) => send(response, failure(500, 'internal', error.message)),
    )
  })
  // Longer than any pause of a client, so that a connection is cut only when the behaviour says so.
  server.keepAliveTimeout = 600_000
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(options.port ?? 0, '127.0.0.1', resolve)
  })
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    async close() {
      server.closeAllConnections()
      await new Promise<void>((resolve) => server.close(() => resolve()))
      await desk.idle()
      ledger.close()
    },
  }
}

interface ChargeDesk {
  charge(idempotencyKey: string | undefined, text: string): Promise<Answer | 'cut'>
  beginOutage(durationMs: number): void
  stats(): ProviderStats
  /** Resolves when no charge is running. */
  idle(): Promise<void>
}

function chargeDesk(ledger: Ledger, behaviour: Behaviour, seed: number): ChargeDesk {
  const stats = { calls: 0, sameAnswer: 0, unavailable: 0, cut: 0, refusedWhileRunning: 0 }
  const running = new Map<string, { requestHash: string; done: Promise<void> }>()
  const callsOf = new Map<string, number>()
  let outageUntilMs = 0

  const unavailable = (): Answer => {
    stats.unavailable++
    return { ...failure(503, 'unavailable', 'come back later'), headers: { 'retry-after': '1' } }
  }

  return {
    async charge(key, text) {
      stats.calls++
      if (performance.now() < outageUntilMs) return unavailable()
      if (!key) return failure(400, 'key_missing', 'a charge needs an Idempotency-Key')
      const parsed = chargeRequest.safeParse(jsonOf(text))
      if (!parsed.success) return failure(400, 'invalid_request', z.prettifyError(parsed.error))
      const request = parsed.data
      const requestHash = createHash('sha256')
        .update(JSON.stringify([request.orderId, request.amountCents, request.card]))
        .digest('hex')

      const stored = ledger.answerTo(key)
      const known = stored ?? running.get(key)
      if (known && known.requestHash !== requestHash) {
        return failure(422, 'key_reused', `key '${key}' was used for another request`)
      }
      if (stored) {
        stats.sameAnswer++
        return { ...stored, headers: { 'idempotent-replayed': 'true' } }
      }
      if (running.has(key)) {
        stats.refusedWhileRunning++
        return failure(409, 'key_running', `a request with key '${key}' is running`)
      }
      const call = (callsOf.get(key) ?? 0) + 1
      callsOf.set(key, call)
      const conduct = conductOf(behaviour, seed, key, call)
      if (conduct.unavailable) return unavailable()

      const { promise: done, resolve } = Promise.withResolvers<void>()
      running.set(key, { requestHash, done })
      try {
        await delay(conduct.takesMs)
        const answer = decide(ledger, key, request, requestHash)
        if (!conduct.cut) return answer
        stats.cut++
        return 'cut'
      } finally {
        running.delete(key)
        resolve()
      }
    },
    beginOutage(durationMs) {
      outageUntilMs = performance.now() + durationMs
    },
    stats: () => ({ ...stats }),
    async idle() {
      await Promise.all([...running.values()].map(({ done }) => done))
    },
  }
}

/** Charges or declines, and books both before anybody hears of it. */
function decide(ledger: Ledger, key: string, request: z.infer<typeof chargeRequest>, requestHash: string): Answer {
  const { orderId, amountCents, card } = request
  if (card.startsWith('card_expired') && !ledger.isReissued(card)) {
    const declined = failure(402, 'card_declined', 'the card has expired')
    ledger.record(key, card, { ...declined, requestHash })
    return declined
  }
  const chargeId = `ch_${crypto.randomUUID()}`
  const charged: Answer = { status: 201, body: JSON.stringify({ chargeId, orderId, amountCents }) }
  ledger.record(key, card, { ...charged, requestHash }, { chargeId, idempotencyKey: key, orderId, amountCents })
  return charged
}

async function route(request: IncomingMessage, desk: ChargeDesk, ledger: Ledger): Promise<Answer | 'cut'> {
  let text = ''
  request.setEncoding('utf8')
  for await (const chunk of request) text += chunk
  switch (`${request.method} ${request.url}`) {
    case 'POST /charges':
      return desk.charge(request.headers['idempotency-key']?.toString(), text)
    case 'GET /admin/charges':
      return { status: 200, body: JSON.stringify(ledger.charges()) }
    case 'GET /admin/stats':
      return { status: 200, body: JSON.stringify(desk.stats()) }
    case 'POST /admin/reissue-cards':
      return { status: 200, body: JSON.stringify({ cards: ledger.reissueDeclinedCards() }) }
    case 'POST /admin/outage': {
      const parsed = z.strictObject({ durationMs: z.number().min(0) }).safeParse(jsonOf(text))
      if (!parsed.success) return failure(400, 'invalid_request', z.prettifyError(parsed.error))
      desk.beginOutage(parsed.data.durationMs)
      return { status: 204, body: '' }
    }
    default:
      return failure(404, 'not_found', `no ${request.method} ${request.url}`)
  }
}

function send(response: ServerResponse, answer: Answer | 'cut'): void {
  if (answer === 'cut') return void response.destroy()
  response.writeHead(answer.status, { 'content-type': 'application/json', ...answer.headers })
  response.end(answer.body)
}

function failure(status: number, code: string, message: string): Answer {
  return { status, body: JSON.stringify({ code, message }) }
}

/** `undefined` where the text is no JSON: the schema then refuses it. */
function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      ledger: { type: 'string', default: '.data/payments-ledger.db' },
      port: { type: 'string', default: '0' },
      seed: { type: 'string', default: '1' },
      'bad-day': { type: 'boolean', default: false },
    },
  })
  const provider = await startProvider({
    ledgerPath: values.ledger,
    port: Number(values.port),
    seed: Number(values.seed),
    behaviour: values['bad-day'] ? badDay : wellBehaved,
  })
  console.log(provider.url)
  // A parent that goes away without a word takes the provider along.
  process.on('disconnect', () => process.exit(0))
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => void provider.close().then(() => process.exit(0)))
  }
}
