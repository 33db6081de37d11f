/**
 * The provider that jobs call, and what the processes of a run need from their parent. It lives in the parent, outside
 * the broker under test and outside every process that is killed, and honours idempotency keys: the same key gets the
 * same answer and charges once. One TCP connection a child, one JSON document a line.
 */
import { createServer, type Server, type Socket, connect as tcpConnect } from 'node:net'
import type { StatementLog } from './statements.ts'

export type LedgerCall =
  /** Charges `businessKey` once per `providerKey`; the answer comes `latencyMs` after the charge. */
  | {
      readonly op: 'charge'
      readonly businessKey: string
      readonly providerKey: string
      readonly latencyMs: number
    }
  /** Counts calls with `key`, this one included. */
  | { readonly op: 'visit'; readonly key: string }
  /** Reserves up to `want` sequence numbers, never given twice; none while too much is under way. */
  | { readonly op: 'reserve'; readonly want: number }
  /** Answers once `parties` callers came to `name`. */
  | { readonly op: 'meet'; readonly name: string; readonly parties: number }

export interface LedgerAnswer {
  readonly chargeId?: string
  readonly visits?: number
  readonly from?: number
  readonly count?: number
}

export interface Ledger {
  readonly port: number
  /** Provider keys under which each business key was charged. More than one is a double charge. */
  readonly charges: ReadonlyMap<string, ReadonlySet<string>>
  close(): Promise<void>
}

export interface LedgerOptions {
  readonly log: StatementLog
  /** How many of `want` jobs may be produced now. @default all */
  readonly mayProduce?: (want: number) => number
}

export async function startLedger(options: LedgerOptions): Promise<Ledger> {
  const charges = new Map<string, Set<string>>()
  const chargeIds = new Map<string, string>()
  const visits = new Map<string, number>()
  const meetings = new Map<string, (() => void)[]>()
  let nextNumber = 0

  const charge = (businessKey: string, providerKey: string): string => {
    const known = chargeIds.get(providerKey)
    if (known) return known
    const chargeId = `charge-${chargeIds.size + 1}`
    // Stated before the answer leaves: a caller that knows of the charge can never be ahead of the log.
    options.log.write({ type: 'effect', businessKey, providerKey })
    chargeIds.set(providerKey, chargeId)
    const keys = charges.get(businessKey) ?? new Set()
    charges.set(businessKey, keys.add(providerKey))
    return chargeId
  }

  const serve = (call: LedgerCall, answer: (answer: LedgerAnswer) => void): void => {
    if (call.op === 'charge') {
      const chargeId = charge(call.businessKey, call.providerKey)
      setTimeout(() => answer({ chargeId }), call.latencyMs)
    } else if (call.op === 'visit') {
      visits.set(call.key, (visits.get(call.key) ?? 0) + 1)
      answer({ visits: visits.get(call.key)! })
    } else if (call.op === 'reserve') {
      const count = options.mayProduce?.(call.want) ?? call.want
      answer({ from: nextNumber, count })
      nextNumber += count
    } else {
      const waiting = meetings.get(call.name) ?? []
      meetings.set(call.name, [...waiting, () => answer({})])
      if (waiting.length + 1 === call.parties) for (const go of meetings.get(call.name)!) go()
    }
  }

  const sockets = new Set<Socket>()
  const server: Server = createServer((socket) => {
    sockets.add(socket)
    socket.setNoDelay(true)
    socket.on('close', () => sockets.delete(socket))
    // A caller that was killed resets its connection; there is nobody left to tell.
    socket.on('error', () => socket.destroy())
    onLine(socket, (line) => {
      const { id, call } = JSON.parse(line) as { id: number; call: LedgerCall }
      serve(call, (answer) => {
        if (socket.writable) socket.write(`${JSON.stringify({ id, answer })}\n`)
      })
    })
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(0, '127.0.0.1', resolve)
  })
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('the ledger has no TCP port')
  return {
    port: address.port,
    charges,
    async close() {
      for (const socket of sockets) socket.destroy()
      await new Promise<void>((resolve) => server.close(() => resolve()))
    },
  }
}

function onLine(socket: Socket, visit: (line: string) => void): void {
  let rest = ''
  socket.setEncoding('utf8').on('data', (text: string) => {
    const lines = (rest + text).split('\n')
    rest = lines.pop()!
    for (const line of lines) visit(line)
  })
}

export interface LedgerClient {
  call(call: LedgerCall): Promise<LedgerAnswer>
  close(): void
}

/** `onGone` is called when the parent closes the connection or dies: a child then has nobody to work for. */
export async function connectLedger(port: number, onGone: () => void): Promise<LedgerClient> {
  const socket = await new Promise<Socket>((resolve, reject) => {
    const opened = tcpConnect(port, '127.0.0.1', () => resolve(opened))
    opened.once('error', reject)
  })
  socket.setNoDelay(true)
  const waiting = new Map<number, (answer: LedgerAnswer) => void>()
  let nextId = 0
  let closed = false
  socket.on('error', () => socket.destroy())
  socket.on('close', () => {
    if (!closed) onGone()
  })
  onLine(socket, (line) => {
    const { id, answer } = JSON.parse(line) as { id: number; answer: LedgerAnswer }
    waiting.get(id)?.(answer)
    waiting.delete(id)
  })
  return {
    call(call) {
      const id = nextId++
      return new Promise((resolve) => {
        waiting.set(id, resolve)
        socket.write(`${JSON.stringify({ id, call })}\n`)
      })
    },
    close() {
      closed = true
      socket.end()
    },
  }
}
