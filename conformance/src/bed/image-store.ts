import { performance } from 'node:perf_hooks'
import { stripVTControlCharacters } from 'node:util'
import { lastLines } from './command.ts'
import type { Engine } from './engine.ts'
import { report, seconds } from './report.ts'

export async function imageExists(engine: Engine, image: string): Promise<boolean> {
  try {
    await engine.client.container.dockerode.getImage(image).inspect()
    return true
  } catch (error) {
    if ((error as { statusCode?: number }).statusCode === 404) return false
    throw error
  }
}

/** Pulls an image, and reports it. Resolves to why that did not work, or `undefined` where it did. */
export async function tryPull(engine: Engine, image: string): Promise<string | undefined> {
  const startedAt = performance.now()
  try {
    const stream = await engine.client.container.dockerode.pull(image)
    await finished(engine, stream)
    report(`pulled ${image}: ${seconds(startedAt)}`)
    return undefined
  } catch (error) {
    const reason = (error as Error).message
      .split('\n')[0]!
      .replace(/^\(HTTP code \d+\) [\w ]+ - /, '')
      .trim()
    report(`${image} cannot be pulled: ${reason}`)
    return reason
  }
}

/** Reads the engine's progress to its end and resolves to its text. Rejects on the error that the engine reports in it. */
export async function finished(engine: Engine, stream: NodeJS.ReadableStream): Promise<string> {
  let text = ''
  let failure: string | undefined
  await new Promise<void>((resolve, reject) => {
    engine.client.container.dockerode.modem.followProgress(
      stream,
      (error: Error | null) => (error ? reject(error) : resolve()),
      (event: { stream?: string; error?: string }) => {
        text = (text + (event.stream ?? '')).slice(-4_000)
        failure ??= event.error
      },
    )
  })
  if (failure !== undefined) throw new Error(`${failure}\n${stripVTControlCharacters(lastLines(text, 15))}`)
  return text
}
