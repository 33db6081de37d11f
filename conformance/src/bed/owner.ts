import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { hostname } from 'node:os'
import type { ContainerRuntimeClient } from 'testcontainers'
import { installed } from './command.ts'
import { report } from './report.ts'

/** On all that the bed makes. A container's value names the process that started it. */
export const ownerLabel = 'idemq.bed.owner'

/** This process: host, pid and start time, because a pid alone comes back. */
export const owner: string = `${hostname()}/${process.pid}/${startTime(process.pid)}`

/** When a process of this machine started, in the kernel's ticks; empty where it does not run or /proc is not there. */
export function startTime(pid: number): string {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? ''
  } catch {
    return ''
  }
}

/** Removes the containers of processes that have ended. Those of another host are left: nobody here can judge them. */
export async function sweep(client: ContainerRuntimeClient): Promise<void> {
  const containers = await client.container.dockerode.listContainers({ all: true, filters: { label: [ownerLabel] } })
  const orphans = containers.filter((container) => !alive(container.Labels[ownerLabel] ?? ''))
  const removed = await Promise.all(orphans.map((container) => remove(client, container.Id)))
  const count = removed.filter(Boolean).length
  if (count > 0) report(`removed ${count} container${count === 1 ? '' : 's'} of test runs that ended`)
}

async function remove(client: ContainerRuntimeClient, id: string): Promise<boolean> {
  try {
    await client.container.getById(id).remove({ force: true, v: true })
    return true
  } catch (error) {
    // Gone, or another process is removing it.
    if ([404, 409].includes((error as { statusCode?: number }).statusCode ?? 0)) return false
    throw error
  }
}

function alive(label: string): boolean {
  const [host, pid = '', startedAt = ''] = label.split('/')
  if (host !== hostname()) return true
  try {
    process.kill(Number(pid), 0)
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
  return startTime(Number(pid)) === startedAt
}

let watched = false

/**
 * Has the containers of this process removed when it ends, however it ends: a shell waits for the end of its standard
 * input, which the operating system closes with us. Without a docker command the next run's sweep does it.
 */
export function removeWhenThisProcessEnds(): void {
  if (watched || !installed('docker')) return
  watched = true
  const script = `read -r _; ids=$(docker ps -aq --filter "label=${ownerLabel}=$1"); [ -z "$ids" ] || docker rm -f -v $ids`
  const shell = spawn('sh', ['-c', script, 'sh', owner], { detached: true, stdio: ['pipe', 'ignore', 'ignore'] })
  shell.on('error', () => {})
  shell.unref()
  ;(shell.stdin as unknown as { unref(): void }).unref()
}
