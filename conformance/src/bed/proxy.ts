import { IdemqError } from '@idemq/core'
import { startContainer } from './container.ts'
import type { Engine } from './engine.ts'

/** A network between a client and a server that a test makes bad. Faults add up until {@link BedProxy.heal}. */
export interface BedProxy {
  /** The server's URL through this proxy. */
  readonly url: string
  readonly host: string
  readonly port: number
  /** Delays every byte, on the way to the server and back, by `latencyMs` give or take `jitterMs`. */
  latency(latencyMs: number, jitterMs?: number): Promise<void>
  /** Resets connections (TCP RST): those there are at their next byte, and every new one. */
  reset(): Promise<void>
  /** Swallows every byte in both directions. Connections stay open, new ones are accepted, nothing arrives. */
  blackHole(): Promise<void>
  /** Swallows what the server answers and lets everything through to it: work is done, its confirmation lost. */
  loseAnswers(): Promise<void>
  /** Closes connections once this many more bytes came from the server: an answer that breaks off. */
  breakAfter(bytes: number): Promise<void>
  /** Closes every connection and refuses new ones. */
  cut(): Promise<void>
  /** A good network again. Connections that were black-holed are closed by this, others go on. */
  heal(): Promise<void>
  stop(): Promise<void>
}

/**
 * Starts a toxiproxy before a server. It listens on the machine's own loopback: an engine's forwarder before a published
 * port would turn a reset into an orderly close.
 */
export async function startProxy(
  engine: Engine,
  upstream: { readonly host: string; readonly port: number },
  port: number,
  url: (hosts: string) => string,
): Promise<BedProxy> {
  const container = await startContainer(engine, 'toxiproxy')
  const api = `http://${container.host}:${container.port}`
  await call(`${api}/proxies`, {
    name: 'bed',
    listen: `${container.host}:${port}`,
    upstream: `${upstream.host}:${upstream.port}`,
    enabled: true,
  })
  const toxic = async (type: string, streams: Stream[], attributes: Record<string, number>): Promise<void> => {
    for (const stream of streams) {
      await call(`${api}/proxies/bed/toxics`, { name: `${type}-${stream}`, type, stream, attributes })
    }
  }
  return {
    url: url(`${container.host}:${port}`),
    host: container.host,
    port,
    latency: (latencyMs, jitterMs = 0) => toxic('latency', both, { latency: latencyMs, jitter: jitterMs }),
    reset: () => toxic('reset_peer', both, { timeout: 0 }),
    blackHole: () => toxic('timeout', both, { timeout: 0 }),
    loseAnswers: () => toxic('timeout', ['downstream'], { timeout: 0 }),
    breakAfter: (bytes) => toxic('limit_data', ['downstream'], { bytes }),
    cut: () => call(`${api}/proxies/bed`, { enabled: false }),
    heal: () => call(`${api}/reset`, {}),
    stop: () => container.stop(),
  }
}

type Stream = 'upstream' | 'downstream'
const both: Stream[] = ['upstream', 'downstream']

async function call(url: string, body: object): Promise<void> {
  const response = await fetch(url, { method: 'POST', body: JSON.stringify(body) })
  if (!response.ok) throw new IdemqError('BROKER_UNAVAILABLE', `toxiproxy: ${response.status} ${await response.text()}`)
  await response.arrayBuffer()
}
