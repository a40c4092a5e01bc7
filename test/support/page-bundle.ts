// A module with all that it imports, as one script for a browser.

import { build, type Rollup } from 'vite'

export async function bundlePage(entry: string): Promise<string> {
  const result = await build({
    configFile: false,
    logLevel: 'error',
    define: { 'process.env.NODE_ENV': '"production"', 'process.env.DEBUG': '""' },
    build: { write: false, lib: { entry, formats: ['iife'], name: 'clients' } },
  })
  const [{ output }] = result as unknown as [Rollup.RollupOutput]
  return output[0].code
}
