// A folder of its own for a test, gone when the test is.

import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'

/**
 * For use inside a test: the folder is removed when the test has finished, after everything that the test registered later.
 *
 * @param parent where to make it, when the test needs a certain file system
 */
export async function temporaryFolder(parent: string = tmpdir()): Promise<string> {
  const { path, remove } = await makeFolder(parent)
  onTestFinished(remove)
  return path
}

/** For hooks and helpers that outlive a test: whoever makes it removes it. */
export async function makeFolder(
  parent: string = tmpdir(),
): Promise<{ path: string; remove: () => Promise<void> }> {
  const path = await mkdtemp(join(parent, 'tidemark-test-'))
  return { path, remove: () => rm(path, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 }) }
}
