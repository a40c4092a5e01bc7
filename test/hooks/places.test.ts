// Storage.Path: where a hook wants the bytes to be found once the upload is finished.

import { existsSync } from 'node:fs'
import { link, readFile, rename, stat, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { FileBytes } from '../../stores/file/file-bytes.ts'
import { headOf } from '../contracts/byte-store-values.ts'
import { startSite } from '../protocol/exchange.ts'
import { temporaryFolder } from '../support/folder.ts'
import { Receiver } from './receiver.ts'

async function siteWithPlace(Path: string) {
  const receiver = await Receiver.start()
  receiver.answers = { 'pre-create': { ChangeFileInfo: { Storage: { Path } } } }
  const site = await startSite({ hooks: { http: { url: receiver.url } } })
  return { receiver, site, file: join(site.folder, Path) }
}

it('is a name of the bytes from the finish on, and goes with the upload', async () => {
  const { receiver, site, file } = await siteWithPlace('2026/11/a.bin')
  const url = await site.create(6)
  await site.append(url, 0, 'abc')
  expect(existsSync(file)).toBe(false)
  await site.append(url, 3, 'def')
  expect(await readFile(file, 'utf8')).toBe('abcdef')
  const [told] = await receiver.until('post-finish')
  expect(told?.payload.Event.Upload.Storage?.Path).toBe(file)
  expect((await site.send('GET', url)).text).toBe('abcdef')
  expect((await site.send('DELETE', url)).status).toBe(204)
  expect(existsSync(file)).toBe(false)
})

it('is never taken from another file, and refuses the creation', async () => {
  const { site, file } = await siteWithPlace('taken')
  await writeFile(file, 'mine')
  const { status, text } = await site.send('POST', '/files', { 'Upload-Length': 3 })
  expect([status, text]).toEqual([409, expect.stringMatching(/^place-taken: another file is where /)])
  expect(await readFile(file, 'utf8')).toBe('mine')
})

it('is never taken from another file that came meanwhile: the upload waits for its place', async () => {
  const { site, file } = await siteWithPlace('taken')
  const url = await site.create(3)
  await writeFile(file, 'mine')
  expect((await site.append(url, 0, 'abc')).status).toBe(409)
  expect(await readFile(file, 'utf8')).toBe('mine')
  await rename(file, `${file}-away`)
  const offset = Number((await site.head(url)).headers['upload-offset'])
  expect((await site.append(url, offset, 'abc'.slice(offset))).status).toBe(204)
  expect(await readFile(file, 'utf8')).toBe('abc')
})

it('goes to one of two uploads that want it', async () => {
  const { site, file } = await siteWithPlace('wanted')
  const [first, second] = [await site.create(3), await site.create(3)]
  expect((await site.append(second, 0, 'two')).status).toBe(204)
  expect((await site.append(first, 0, 'one')).status).toBe(409)
  expect(await readFile(file, 'utf8')).toBe('two')
  expect((await site.send('DELETE', first)).status).toBe(204)
  expect(await readFile(file, 'utf8')).toBe('two')
})

it('leaves alone what was put there in its stead', async () => {
  const { site, file } = await siteWithPlace('changed')
  const url = await site.createFinished('abc')
  await writeFile(`${file}-new`, 'other')
  await rename(`${file}-new`, file)
  expect((await site.send('DELETE', url)).status).toBe(204)
  expect(await readFile(file, 'utf8')).toBe('other')
})

it('never leads out of the folder, not by a link either', async () => {
  const outside = await temporaryFolder()
  const { site } = await siteWithPlace('out/a')
  await symlink(outside, join(site.folder, 'out'))
  expect((await site.send('POST', '/files', { 'Upload-Length': 3 })).status).toBe(500)
  expect(existsSync(join(outside, 'a'))).toBe(false)
})

it('can be the name of the upload itself', async () => {
  const { receiver, site } = await siteWithPlace('same')
  receiver.answers = { 'pre-create': { ChangeFileInfo: { ID: 'same', Storage: { Path: 'same' } } } }
  const url = await site.createFinished('abc')
  expect((await site.send('GET', url)).text).toBe('abc')
})

it('is found by a successor whose predecessor died between the name and the mark', async () => {
  const directory = await temporaryFolder()
  const first = new FileBytes({ directory, durability: 'none' })
  const appender = await first.create({ ...headOf('upload'), storagePath: 'place' }, 3)
  await appender.write([Buffer.from('abc')], 0)
  // As after a kill: named, and the mark says nothing of it.
  await link(join(directory, 'upload'), join(directory, 'place'))
  const second = new FileBytes({ directory, durability: 'none' })
  const next = await second.open('upload')
  await next!.write([Buffer.from('xyz')], 0)
  const { mark } = await next!.finish(3)
  await next!.close()
  expect(mark.generation).toBe(1)
  expect(await readFile(join(directory, 'place'), 'utf8')).toBe('xyz')
  expect((await stat(join(directory, 'place'))).nlink).toBe(2)
})
