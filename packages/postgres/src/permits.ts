/** Bounds how many of something run at once; the others wait in the order they came. */
import { aborted } from './database.ts'

export class Permits {
  #held = 0
  readonly #waiting: (() => void)[] = []

  /** Runs `work` once fewer than `max` run. An abort of `signal` ends the wait. */
  async hold<T>(max: number, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    if (this.#held >= max) await this.#wait(signal)
    else this.#held++
    try {
      return await work()
    } finally {
      const next = this.#waiting.shift()
      if (next) next()
      else this.#held--
    }
  }

  #wait(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const enter = (): void => {
        signal.removeEventListener('abort', leave)
        resolve()
      }
      const leave = (): void => {
        this.#waiting.splice(this.#waiting.indexOf(enter), 1)
        reject(aborted('run a transaction', signal))
      }
      this.#waiting.push(enter)
      signal.addEventListener('abort', leave, { once: true })
      if (signal.aborted) leave()
    })
  }
}
