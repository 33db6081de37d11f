/** The client on kafkajs, in this file and the two beside it. */
import { connect as connectTcp, isIP, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import kafkajs, { type ISocketFactoryArgs, type Kafka, type KafkaConfig } from 'kafkajs'
import type { KafkaClient, Producer } from './client.ts'
import { kafkaError } from './kafka-error.ts'
import { KafkajsConnection } from './kafkajs-connection.ts'

// Its exports have no names that a module could import.
const { logLevel, Partitioners } = kafkajs

const keepAliveMs = 60_000
/** Quickly, once or twice: whoever calls repeats. */
const retry = { retries: 2, initialRetryTime: 50, maxRetryTime: 250 }
/** An idempotent producer repeats under the same sequence numbers, which is what makes a repeat no duplicate. */
const producerRetry = { retries: 4, initialRetryTime: 100, maxRetryTime: 1_000 }

export function kafkajsClient(config: KafkaConfig, where: string): KafkaClient {
  const kafka = new kafkajs.Kafka({
    retry,
    socketFactory,
    ...config,
    logLevel: logLevel.NOTHING,
    logCreator: () => () => {},
  })
  return { where, connection: () => new KafkajsConnection(kafka, where), producer: () => kafkajsProducer(kafka, where) }
}

/** As kafkajs's own. */
function socketFactory({ host, port, ssl, onConnect }: ISocketFactoryArgs): Socket {
  const servername = isIP(host) ? {} : { servername: host }
  const socket = ssl
    ? connectTls({ host, port, ...servername, ...ssl }, onConnect)
    : connectTcp({ host, port }, onConnect)
  socket.setKeepAlive(true, keepAliveMs)
  // Each try to reach a broker that is down leaves a listener on the last socket: that is no leak to warn of.
  return socket.setMaxListeners(0)
}

function kafkajsProducer(kafka: Kafka, where: string): Producer {
  const producer = kafka.producer({
    idempotent: true,
    allowAutoTopicCreation: false,
    createPartitioner: Partitioners.DefaultPartitioner,
    retry: producerRetry,
  })
  const run = (what: string, call: Promise<unknown>): Promise<void> =>
    call.then(
      () => {},
      (error) => Promise.reject(kafkaError(error, what, where)),
    )
  return {
    connect: () => run('connect to send', producer.connect()),
    send: (topic, records) =>
      run(
        `send to topic '${topic}'`,
        producer.send({ topic, acks: -1, messages: records.map((each) => ({ ...each })) }),
      ),
    close: () => producer.disconnect(),
  }
}
