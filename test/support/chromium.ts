// The real browser, with a profile folder that the test owns: what the page kept (IndexedDB, local storage) is there
// again when a browser is launched on the same folder, also after a SIGKILL.

import { readlink } from 'node:fs/promises'
import { join } from 'node:path'
import type { BrowserContext } from 'playwright-core'
import { chromium } from 'playwright-core'
import { programPath } from '../../scripts/test-programs.mjs'

// As root, in containers and without a network: no sandbox, no calls home. QUIC off, since tests speak plain HTTP.
const flags = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-dev-shm-usage',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
]

export type BrowserOptions = {
  /** An empty folder for a new profile; the same folder again for a relaunch. */
  profileDir: string
  viewport?: { width: number; height: number }
  colorScheme?: 'light' | 'dark'
}

export type Browser = {
  context: BrowserContext
  /** Ends the browser in order. */
  close: () => Promise<void>
  /** SIGKILL, as a crash or the end of a battery does it (Linux). Resolves when it is gone. */
  kill: () => Promise<void>
}

export async function launchChromium(options: BrowserOptions): Promise<Browser> {
  const { profileDir, viewport = { width: 1280, height: 800 }, colorScheme = 'light' } = options
  const context = await chromium.launchPersistentContext(profileDir, {
    executablePath: programPath('chromium'),
    headless: true,
    args: flags,
    viewport,
    colorScheme,
  })
  return {
    context,
    close: () => context.close(),
    async kill() {
      const closed = new Promise<void>((resolve) => context.once('close', () => resolve()))
      process.kill(await pidOf(profileDir), 'SIGKILL')
      await closed
    },
  }
}

/** Chromium marks a profile in use by a link whose target ends with its pid. */
async function pidOf(profileDir: string): Promise<number> {
  const target = await readlink(join(profileDir, 'SingletonLock'))
  return Number(target.slice(target.lastIndexOf('-') + 1))
}
