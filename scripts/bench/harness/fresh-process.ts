/**
 * Runs a task in a process of its own, so that no measurement inherits the heap, the compiled code or the garbage of
 * another. A file with tasks exports them as `tasks`, by name; options and results travel as structured clones.
 */
import { fork } from 'node:child_process'

export type Task<Options, Result> = (options: Options) => Promise<Result>
export type Tasks = Readonly<Record<string, Task<never, unknown>>>

/**
 * @param file `import.meta.url` of the file that exports the task
 * @throws Error if the task rejects or its process ends without a result; what it printed is on stderr
 */
export function inFreshProcess<Options, Result>(
  file: string,
  task: Task<Options, Result>,
  options: Options,
  nodeFlags: readonly string[] = [],
): Promise<Result> {
  return new Promise((resolve, reject) => {
    const child = fork(import.meta.filename, [file, task.name], {
      execArgv: [...process.execArgv, ...nodeFlags],
      serialization: 'advanced',
    })
    let answer: { readonly result: Result } | undefined
    child.on('message', (message) => {
      answer = message as { readonly result: Result }
    })
    child.on('error', reject)
    child.on('exit', (code, signal) => {
      if (answer && code === 0) resolve(answer.result)
      else reject(new Error(`${task.name} in ${file} ended with ${signal ?? `code ${code}`}`))
    })
    child.send({ options })
  })
}

async function runTask(file: string, name: string): Promise<void> {
  const { tasks } = (await import(file)) as { tasks: Tasks }
  const task = tasks[name]
  if (!task) throw new Error(`${file} exports no task '${name}'`)
  // Nobody is left to tell.
  process.once('disconnect', () => process.exit(1))
  process.once('message', async ({ options }: { options: never }) => {
    const result = await task(options)
    process.send!({ result }, undefined, {}, () => process.exit(0))
  })
}

// Not awaited: the task's file imports this one, which must be complete by then.
if (process.argv[1] === import.meta.filename) void runTask(process.argv[2]!, process.argv[3]!)
