/** What the worker knows of the provider: one call, and what each answer means for a retry. */
import { PermanentError, RetryAfterError } from '@idemq/core'
import { z } from 'zod'

export interface ChargeRequest {
  readonly orderId: string
  readonly amountCents: number
  readonly card: string
}

const receiptSchema = z.object({ chargeId: z.string(), orderId: z.string(), amountCents: z.int() })
export type Receipt = z.infer<typeof receiptSchema>

/** The provider refused this card: only another card helps. */
export class CardDeclined extends PermanentError {
  override readonly name: string = 'CardDeclined'
}

/** The provider saw this key with another request: a bug on our side, never to be retried. */
export class IdempotencyKeyReused extends PermanentError {
  override readonly name: string = 'IdempotencyKeyReused'
}

/** The provider cannot read the request. */
export class ChargeRefused extends PermanentError {
  override readonly name: string = 'ChargeRefused'
}

/** A call with this key is running, perhaps of a worker that was killed: ask again for its answer. */
export class ChargeStillRunning extends Error {
  override readonly name: string = 'ChargeStillRunning'
}

/** The provider failed, or answered what nobody understands. */
export class ProviderFailed extends Error {
  override readonly name: string = 'ProviderFailed'
}

export interface PaymentProvider {
  /**
   * Charges once per `idempotencyKey`, however often it is called; a repeated call gets the first one's answer.
   * @throws CardDeclined, IdempotencyKeyReused, ChargeRefused (permanent); RetryAfterError, ChargeStillRunning,
   * ProviderFailed and fetch's own errors (transient: the charge may have been made, the same key finds out)
   */
  charge(request: ChargeRequest, call: { idempotencyKey: string; signal: AbortSignal }): Promise<Receipt>
}

export function paymentProvider(url: string): PaymentProvider {
  return {
    async charge(request, { idempotencyKey, signal }) {
      const response = await fetch(`${url}/charges`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', 'idempotency-key': idempotencyKey },
        body: JSON.stringify(request),
        signal,
      })
      const text = await response.text()
      switch (response.status) {
        case 201:
          return receiptSchema.parse(JSON.parse(text))
        case 402:
          throw new CardDeclined(messageOf(text))
        case 409:
          throw new ChargeStillRunning(messageOf(text))
        case 422:
          throw new IdempotencyKeyReused(messageOf(text))
        case 503:
          throw new RetryAfterError(retryAfterMs(response), 'the provider is unavailable')
        default:
          if (response.status >= 400 && response.status < 500) throw new ChargeRefused(messageOf(text))
          throw new ProviderFailed(`HTTP ${response.status}: ${messageOf(text)}`)
      }
    },
  }
}

function retryAfterMs(response: Response): number {
  const seconds = Number(response.headers.get('retry-after') ?? '1')
  return Number.isFinite(seconds) && seconds >= 0 ? seconds * 1_000 : 1_000
}

function messageOf(text: string): string {
  const parsed = z.object({ message: z.string() }).safeParse(safeJson(text))
  return parsed.success ? parsed.data.message : text.slice(0, 200)
}

function safeJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
