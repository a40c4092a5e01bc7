/**
 * Builds the page into dist/web: one stylesheet, one script, each also as .br and .gz beside it, so that serving
 * it costs no CPU. Paths are relative, so the page also works below a path that a proxy adds.
 */
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { brotliCompressSync, gzipSync } from 'node:zlib'
import { defineConfig, type Plugin } from 'vite'

const outDir = new URL('../dist/web', import.meta.url).pathname

export default defineConfig({
  root: new URL('.', import.meta.url).pathname,
  base: './',
  build: { outDir, emptyOutDir: true, modulePreload: { polyfill: false }, chunkSizeWarningLimit: 700 },
  plugins: [compressed()],
  // `npx vite --config web/vite.config.ts` for work on the page, beside a running server.
  server: {
    host: '127.0.0.1',
    proxy: { '/files': 'http://127.0.0.1:1080', '/uploads': 'http://127.0.0.1:1080' },
  },
})

function compressed(): Plugin {
  return {
    name: 'tidemark-compressed',
    apply: 'build',
    async writeBundle() {
      const assets = join(outDir, 'assets')
      for (const name of await readdir(assets)) {
        const bytes = await readFile(join(assets, name))
        await writeFile(join(assets, `${name}.br`), brotliCompressSync(bytes))
        await writeFile(join(assets, `${name}.gz`), gzipSync(bytes, { level: 9 }))
      }
    },
  }
}
