// The commands of docs/plain-uploads.md, as they stand there, but for the port.

import { readFile } from 'node:fs/promises'
import { delimiter, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, it, onTestFinished } from 'vitest'
import { programPath } from '../../scripts/test-programs.mjs'
import { startChild } from '../support/child.ts'
import { temporaryFolder } from '../support/folder.ts'
import { randomFile, sha256 } from '../support/random-file.ts'
import { startServer } from '../support/server-process.ts'

const document = fileURLToPath(new URL('../../docs/plain-uploads.md', import.meta.url))
const MiB = 1024 * 1024

it('every command does what the text says', { timeout: 120_000 }, async () => {
  const blocks = [...(await readFile(document, 'utf8')).matchAll(/^```sh\n(.*?)^```$/gms)].map(
    ([, code]) => code!,
  )
  const { port, url, folder } = await setUp()
  const film = await randomFile(join(folder, 'film.mp4'), 'film', 5 * MiB)
  const title = await randomFile(join(folder, 'title.png'), 'title', 20_480)
  const again = join(folder, 'again.mp4')
  const run = async (code: string) => {
    // A standard input that is no terminal is taken for the body by HTTPie; people have a terminal.
    const command = code.replaceAll('localhost:1080', `127.0.0.1:${port}`).replaceAll(':1080', `:${port}`)
    const child = startChild('sh', ['-ec', command.replace(/^http /, 'http --ignore-stdin ')], {
      cwd: folder,
      env: { ...process.env, PATH: path(), LC_ALL: 'C.UTF-8' },
    })
    const { code: exit } = await child.exited
    return { exit, output: child.output(), stdout: child.stdout() }
  }
  const [curlForm, httpieForm, curlPut, wgetPut, curlGet, wgetGet, goOn, ...more] = blocks
  expect(more).toEqual([])

  for (const form of [curlForm!, httpieForm!]) {
    const { files } = JSON.parse((await run(form)).stdout) as { files: { sha256: string; type: string }[] }
    expect(files).toMatchObject([
      { field: 'upload', name: 'title.png', size: 20_480, type: 'image/png', ...sum(title) },
    ])
  }
  expect(JSON.parse((await run(curlPut!)).stdout)).toMatchObject({ name: 'film.mp4', size: 5 * MiB })
  expect(JSON.parse((await run(wgetPut!)).stdout)).toMatchObject({ name: 'film.mp4', size: 5 * MiB })
  for (const get of [curlGet!, wgetGet!]) {
    expect((await run(get)).exit).toBe(0)
    expect(await sha256(await readFile(again))).toBe(film.sha256)
  }

  const bytes = await readFile(film.path)
  const range = { 'Content-Range': `bytes 0-${MiB - 1}/${5 * MiB}` }
  const begun = await fetch(`${url}/upload/film.mp4`, {
    method: 'PUT',
    body: bytes.subarray(0, MiB),
    headers: range,
  })
  expect(begun.status).toBe(202)
  const rest = await run(goOn!)
  expect(rest.exit, rest.output).toBe(0)
  const got = await fetch(`${url}/upload/film.mp4`)
  expect(await sha256(Buffer.from(await got.arrayBuffer()))).toBe(film.sha256)
})

const sum = ({ sha256 }: { sha256: string }) => ({ sha256 })

/** The programs that the tests were told to use, before others of their names. */
function path(): string {
  const folders = (['curl', 'wget', 'httpie'] as const).map((name) => dirname(programPath(name)))
  return [...folders, process.env.PATH].join(delimiter)
}

async function setUp() {
  const server = await startServer({ dir: await temporaryFolder() })
  onTestFinished(async () => void (await server.stop()))
  return { port: server.port, url: server.url, folder: await temporaryFolder() }
}
