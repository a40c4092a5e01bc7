// A module with all that it imports, as one script and one style sheet for a browser.

import { build, type Rollup } from 'vite'

export async function bundlePage(entry: string): Promise<{ script: string; styles: string }> {
  const result = await build({
    configFile: false,
    logLevel: 'error',
    define: { 'process.env.NODE_ENV': '"production"', 'process.env.DEBUG': '""' },
    build: { write: false, lib: { entry, formats: ['iife'], name: 'clients' } },
  })
  const [{ output }] = result as unknown as [Rollup.RollupOutput]
  const styles = output.flatMap((part) => (part.type === 'asset' ? [String(part.source)] : []))
  return { script: output[0].code, styles: styles.join('\n') }
}
