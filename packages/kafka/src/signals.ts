import { IdemqError } from '@idemq/core'

export function aborted({ reason }: AbortSignal, what: string): IdemqError {
  if (reason instanceof IdemqError) return reason
  return new IdemqError('ABORTED', `kafka: ${what}: the caller gave up`, reason)
}

/** The outcome of `work`, or, if `signal` aborts first, its reason. The work goes on by itself. */
export async function unlessAborted<T>(work: Promise<T>, signal: AbortSignal, what: string): Promise<T> {
  if (signal.aborted) {
    work.catch(() => {})
    throw aborted(signal, what)
  }
  let onAbort: (() => void) | undefined
  try {
    return await Promise.race([
      work,
      new Promise<never>((_, reject) => {
        onAbort = () => reject(aborted(signal, what))
        signal.addEventListener('abort', onAbort)
      }),
    ])
  } finally {
    if (onAbort) signal.removeEventListener('abort', onAbort)
  }
}
