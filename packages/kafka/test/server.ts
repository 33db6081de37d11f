/** Real brokers for the tests of this package, and what they need of an adapter. */
import { randomUUID } from 'node:crypto'
import { connect, type Socket } from 'node:net'
import type { Adapter, Delivery, OpenOptions, Outgoing, QueueRef, Receiver } from '@idemq/core'
import type { KafkaConfig } from 'kafkajs'
import { onTestFinished } from 'vitest'
import { type KafkaOptions, kafka } from '../src/options.ts'

/** Never aborts. */
export const signal: AbortSignal = new AbortController().signal

/** Settings under which a test need not wait long. */
export const quick: KafkaOptions & { readonly sessionTimeoutMs: number } = {
  partitions: 2,
  sessionTimeoutMs: 2_000,
  onWarning() {},
}

/** Closed when the test ends. */
export function open(url: string, options: KafkaOptions = {}): Adapter {
  const adapter = kafka({ url, ...quick, ...options })
  onTestFinished(() => adapter.driver.close())
  return adapter
}

export function newQueue(): QueueRef {
  return { name: `q-${randomUUID().slice(0, 13)}`, group: 'default' }
}

export function openReceiver(
  { driver }: Adapter,
  queue: QueueRef,
  options: Partial<OpenOptions> = {},
): Promise<Receiver> {
  return driver.open(queue, { maxUnsettled: 100, leaseMs: 30_000, onLost: () => {}, ...options }, signal)
}

export function message(text: string, change: Partial<Outgoing> = {}): Outgoing {
  const jobId = randomUUID()
  return {
    copyId: `${jobId}.0.1.0`,
    jobId,
    body: Buffer.from(text),
    partitionKey: jobId,
    ordered: false,
    delayMs: 0,
    ...change,
  }
}

export function texts(deliveries: readonly Delivery[]): string[] {
  return deliveries.map(({ body }) => Buffer.from(body).toString())
}

/** Cables that can be cut. */
export interface Cables {
  readonly client: Pick<KafkaConfig, 'socketFactory'>
  /** Cuts all, and lets none come up for `forMs`. */
  cut(forMs: number): Promise<void>
}

export function cables(): Cables {
  const sockets = new Set<Socket>()
  let isCut = false
  return {
    client: {
      socketFactory({ host, port, onConnect }) {
        const socket = connect({ host, port }, onConnect)
        sockets.add(socket)
        socket.on('close', () => sockets.delete(socket))
        if (isCut) socket.destroy(new Error('the cable is cut'))
        return socket
      },
    },
    async cut(forMs) {
      isCut = true
      for (const socket of sockets) socket.destroy(new Error('the cable is cut'))
      await new Promise((resolve) => setTimeout(resolve, forMs))
      isCut = false
    },
  }
}
