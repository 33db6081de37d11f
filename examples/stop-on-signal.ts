/** Calls `stop` once on SIGINT or SIGTERM. A second signal ends the process at once. */
export function stopOnSignal(stop: () => Promise<void>): void {
  const once = (): void => {
    process.off('SIGINT', once)
    process.off('SIGTERM', once)
    stop().catch((error) => {
      console.error(error)
      process.exitCode = 1
    })
  }
  process.on('SIGINT', once)
  process.on('SIGTERM', once)
}
